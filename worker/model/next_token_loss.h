// Next-token cross-entropy on top of the last hidden state: final norm, LM head and loss in chunks
// of rows (logit_rows.h), so that the logits of a batch never exist at once.
//
// Free of state; throws c10::Error on wrong shapes. Shapes as in llama.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/model/llama.h"

namespace tandem {

// Every position but the last of each sequence predicts its successor (method.md §6.2, packed
// text).
struct NextTokenLosses {
  at::Tensor losses_BT1;    // (B,T-1)
  at::Tensor predicted_BT;  // int64; only when asked for
  at::Tensor other_losses;  // one per OtherTarget
};
// The loss of another token than the one that follows row `position` of a sequence: choices that
// differ in their last token share a forward pass.
struct OtherTarget {
  int64_t sequence = 0, position = 0, token = 0;
};
NextTokenLosses ComputeNextTokenLosses(const Llama& model, const at::Tensor& x_BTD,
                                       const at::Tensor& ids_BT, bool predictions,
                                       const std::vector<OtherTarget>& others = {});

// Rows b T + t of which token t+1 is a label, ascending: the only ones whose logits are made. Where
// the mask (B,T) is.
at::Tensor PredictingRows(const at::Tensor& label_mask_BT);

struct NextTokenGradient {
  double loss_sum = 0;  // over the targets
  at::Tensor d_x_BTD;   // gradient of gradient_scale * loss_sum
};
// label_mask_BT (B,T) uint8 as StepBatch has it: only labels are targets, and no logits are made
// for other rows. Undefined: the B (T-1) targets of packed text.
NextTokenGradient NextTokenBackward(const Llama& model, const at::Tensor& x_BTD,
                                    const at::Tensor& ids_BT, double gradient_scale,
                                    const at::Tensor& label_mask_BT = {});

}  // namespace tandem
