// Attention that stays within documents (data.document_mask): a batch cut where documents begin.
//
// A packed sequence holds parts of several documents. With the mask on, a layer's attention runs
// span by span, as if each were a sequence of its own; everything else of the layer, and the
// positions 0 ... T-1, are those of the packed sequence. Without the mask a batch has no spans.
// Free of state; any thread. Shapes: q (B,H,T,d), k and v (B,K,T,d), y (B,H,T,d).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/model/llama.h"
#include "worker/train/stage.h"

namespace tandem {

struct DocumentSpan {
  int64_t row = 0;               // sequence of the batch
  int64_t begin = 0, count = 0;  // its tokens
};

// In order of rows and tokens, without a gap; empty without the mask.
std::vector<DocumentSpan> DocumentSpansOf(const StepBatch& batch);

// Views of one span, B = 1 and T = count.
QkvTensors Within(const QkvTensors& qkv, const DocumentSpan& span);

// The spans' outputs (1,H,count,d), in order, as one (B,H,T,d). Differentiable.
at::Tensor JoinSpans(const std::vector<at::Tensor>& parts, const std::vector<DocumentSpan>& spans);

}  // namespace tandem
