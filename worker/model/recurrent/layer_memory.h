// LayerMemory: what one layer of a recurrent model remembers of the tokens it has seen.
//
// Converted heads keep the window's keys and values, the pinned sinks and two sums, all constant in
// size (method.md §4, decode cache); heads that stay softmax keep every key and value, and grow.
// Plain data, made and moved on by RecurrentAttention; confined to whoever decodes the sequences.
//
// Shapes: B sequences at one position, K' converted and R softmax key/value heads of K, G query
// heads per key/value head, P = K'G heads of the sums (K' where a tied map is shared), F features,
// d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tandem {

struct LayerMemory {
  int64_t position = 0;  // tokens seen
  int64_t prompt = 0;    // tokens of the first part, as a whole

  // Tokens first ... position-1: those that a later row may still have in its window.
  at::Tensor k, v;  // (B,K',n,d)
  int64_t first = 0;
  at::Tensor sink_k, sink_v;  // (B,K',min(sinks,position),d)
  // Sums over the keys of the linear branch before the buffer; fp32.
  at::Tensor S, z;   // (B,P,F,d), (B,P,F)
  at::Tensor z_all;  // mixing kind mass: sum over all keys seen, (B,P,F)
  // Sparse cache, per query head (B,K'G,C,d) and (B,K'G,C); score -inf: an empty place.
  at::Tensor cached_k, cached_v, cached_score;

  // Softmax heads: the first `position` of the capacity are filled.
  at::Tensor full_k, full_v;  // (B,R,capacity,d)

  // All of the above as allocated.
  int64_t bytes() const;
};

// Puts k, v (B,R,r,d) of the next r tokens behind the others; room doubles when it is full.
// Does not move `position`.
void AppendToFull(const at::Tensor& k, const at::Tensor& v, LayerMemory* memory);

}  // namespace tandem
