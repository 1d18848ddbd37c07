// The objectives weights and hybrid_weights for every form and device, streamed by blocks of rows
// (method.md §6.1). Private to this folder. Confined to the calling thread; wrong shapes throw
// c10::Error.
#pragma once

#include "worker/model/attention/form.h"

namespace tandem::attention {

// The mean over B, H, T of -sum_j p*_ij ln(x_ij + 1e-12) + ln Z_i, and grad_scale times its
// gradients; d_theta stays undefined.
TransferResult GeneralWeights(const TransferCall& call);

// The mean of -sum_{W_i} p* ln e_ij - sum_{O_i} p* ln(x_ij + 1e-12) + ln D_i; gradients of theta
// too. Span outside, mixing shared.
TransferResult GeneralHybridWeights(const TransferCall& call);

}  // namespace tandem::attention
