// The sparse cache: of the keys that leave the window, each query head keeps the few that its own
// sums would recall worst, in the softmax set (method.md §3; self-recall error after LoLA,
// arXiv 2505.23666).
//
// A key j that leaves is scored once: |readout(k_j) - v_j| |k_j|, readout = (phi_k(k_j) S) /
// max(phi_k(k_j) z, 1e-12), with S and z before j. It takes an empty place, or that of the cached
// key with the smallest score if its own is larger; whoever loses goes into S and z.
//
// Each decision needs the sums that the one before has left, so they are made one by one, on the
// host, whatever the device: from a GPU S and z go there and back once per block. What rows read of
// them is not: a block of rows sees all keys that are or come into the cache, and all that go into
// the sums, each from its time on. Functions of their arguments; forward only, any device, any
// thread.
//
// Shapes: B sequences, H query heads, C places, L keys that leave during a block, r its rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "worker/model/recurrent/layer_memory.h"

namespace tandem {

// Empty places for the H query heads of memory.S (B,H,F,d).
void StartSparseCache(int64_t size, LayerMemory* memory);

struct LeavingKeys {
  at::Tensor k, v;    // (B,H,L,d), in the order in which they leave
  at::Tensor left_r;  // (r) int64: how many of them have left before each row; where k is
};

// What a block's rows read, and what is left behind it.
struct CacheTurnover {
  at::Tensor k, v;         // (B,H,C+L,d): those cached before, then those that leave
  at::Tensor hidden_rm;    // (B,H,r,C+L): not in the cache at this row
  at::Tensor phi;          // (B,H,N,F) of the last N, which alone may be folded
  at::Tensor unfolded_rm;  // (B,H,r,N): not in the sums at this row
  at::Tensor S, z, cached_k, cached_v, cached_score;  // as in LayerMemory, after the block
};
// phi: keys (B,H,n,d) to features (B,H,n,F). Reads the memory, and leaves it as it is.
CacheTurnover TurnOver(const LeavingKeys& leaving,
                       const std::function<at::Tensor(const at::Tensor&)>& phi,
                       const LayerMemory& memory);

}  // namespace tandem
