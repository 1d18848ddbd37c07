// The call of the streamed weights loss, shared by the differentiable operator and the fused
// transfer step. Private. Confined to the calling thread; throws c10::Error on wrong shapes.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cpu/attention.h"

namespace tandem::attention {

struct WeightsInputs {
  AttentionSizes sizes;
  at::Tensor q, k, lse;
  at::Tensor phi_q, phi_k, d_phi_q, d_phi_k;  // features given, or
  at::Tensor w_q, w_k, d_w_q, d_w_k;          // maps (H,d,f), their gradients (B,H,d,f)
};

// Checks q (B,H,T,d), k (B,K,T,d), lse (B,H,T); map_dim is unset.
WeightsInputs CollectWeights(const at::Tensor& q, const at::Tensor& k, const at::Tensor& lse);

// The mean loss over B, H, T; gradients of grad_scale times it into those that are defined.
double RunWeights(const WeightsInputs& in, double grad_scale);

}  // namespace tandem::attention
