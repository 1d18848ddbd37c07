// Distillation into the converted model: KL(teacher || student) of the next token, where the
// teacher is the frozen base with softmax attention.
//
// Logits of both are made for chunks of rows and never kept: memory is O(N D + chunk V), not B T V.
// The teacher is run layer by layer without a tape. Free of state; the caller's device. Rows are
// those of next_token_loss.h: position t counts when token t+1 is a label.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "worker/model/llama.h"
#include "worker/train/document_spans.h"

namespace tandem {

// (B,T,D): the base's hidden state before its final norm; attention stays within the spans, if any.
at::Tensor TeacherHiddenState(const Llama& model, const at::Tensor& ids_BT,
                              const std::vector<DocumentSpan>& spans = {});

struct DistillGradient {
  double loss_sum = 0;  // over the targets, in nats
  at::Tensor d_x_BTD;   // gradient of gradient_scale * loss_sum
};
// label_mask_BT as StepBatch has it; undefined: the B (T-1) targets of packed text.
DistillGradient DistillBackward(const Llama& model, const at::Tensor& x_BTD,
                                const at::Tensor& teacher_BTD, const at::Tensor& label_mask_BT,
                                double gradient_scale);

}  // namespace tandem
