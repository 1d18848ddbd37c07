// The sparse cache: of the keys that leave the window, each query head keeps the few that its own
// sums would recall worst, in the softmax set (method.md §3; self-recall error after LoLA,
// arXiv 2505.23666).
//
// A key j that leaves is scored once: |readout(k_j) - v_j| |k_j|, readout = (phi_k(k_j) S) /
// max(phi_k(k_j) z, 1e-12), with S and z before j. It takes an empty place, or that of the cached
// key with the smallest score if its own is larger; whoever loses goes into S and z. Functions on
// LayerMemory; forward only, any device; confined to the thread that decodes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "worker/model/recurrent/layer_memory.h"

namespace tandem {

// Empty places for the H query heads of memory.S (B,H,F,d).
void StartSparseCache(int64_t size, LayerMemory* memory);

// (B,H,C): places that hold no key.
at::Tensor EmptyPlaces(const LayerMemory& memory);

// One key of each head, k and v (B,H,1,d), leaves the window. phi: keys (B,H,1,d) to features
// (B,H,1,F).
void LeaveWindow(const at::Tensor& k, const at::Tensor& v,
                 const std::function<at::Tensor(const at::Tensor&)>& phi, LayerMemory* memory);

}  // namespace tandem
