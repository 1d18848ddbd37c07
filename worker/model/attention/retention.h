// A layer cut in two by heads: the KV groups that stay softmax, with their query heads, and the
// converted rest (method.md §3, retained heads). Private to this folder. Differentiable selections,
// no arithmetic. Immutable; groups outside 0 ... K-1 or out of order throw c10::Error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/model/attention/form.h"

namespace tandem::attention {

class HeadSplit {
 public:
  // q (B,H,T,d), k (B,K,T,d).
  HeadSplit(const at::Tensor& q, const at::Tensor& k, const LayerRetention& retained);

  bool retains_all() const { return converted_groups_.numel() == 0; }
  at::Tensor RetainedQueries(const at::Tensor& q) const;
  at::Tensor RetainedKeys(const at::Tensor& k_or_v) const;
  // The call of the converted heads alone, nothing retained.
  AttentionCall Converted(const AttentionCall& call) const;
  // Head-indexed parts, dimension 1, back into one (B,H,T,...); lies in memory as (B,T,H,...).
  at::Tensor Join(const at::Tensor& converted, const at::Tensor& retained) const;
  // (B,H,...) of the whole layer -> that of the converted heads; (H) likewise.
  at::Tensor ConvertedHeads(const at::Tensor& of_layer) const;
  at::Tensor ConvertedFactors(const at::Tensor& theta_H) const;
  // A gradient of the converted heads' parameter (heads or groups first) -> of the layer's, zero
  // for the retained; undefined stays so.
  at::Tensor Spread(const at::Tensor& gradient) const;

 private:
  at::Tensor retained_groups_, converted_groups_, retained_heads_, converted_heads_, place_;
  int64_t heads_, kv_heads_;
};

}  // namespace tandem::attention
