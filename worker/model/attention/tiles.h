// How the general operator cuts a sequence: blocks of C rows, the band of keys each block meets one
// by one, and which pairs of a band are in which branch (method.md §3, §4). Private to this folder.
//
// A block n covers rows nC ... nC+C-1; its band is the W = L + C keys from nC - L on, where L, a
// multiple of C, reaches back as far as any row's window. Earlier keys are linear for every row of
// the block: they come by the states. Sequences are padded to whole blocks; padded rows see
// something finite and are cut off. Shapes: N = B K (sequence, group) pairs, n blocks, G query
// heads of a group. Immutable; cannot fail.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "worker/model/attention/form.h"

namespace tandem::attention {

struct Tiles {
  Tiles(ComponentMode mode, const AttentionForm& form, int64_t mode_sinks, int64_t num_tokens);

  int64_t lead_blocks() const { return lead / rows; }
  int64_t padded() const { return blocks * rows; }
  // Blocks whose keys enter a state that some row block reads.
  int64_t state_blocks() const { return std::max<int64_t>(0, blocks - lead_blocks() - 1); }

  bool softmax = false, linear = false, band_softmax = false;
  int64_t tokens = 0, rows = 0, blocks = 0, lead = 0, width = 0, sinks = 0;
};

// Pairs of the band and of the sinks, true where they belong; undefined where a mode has none.
struct TileMasks {
  at::Tensor window_n1CW, sinks_n1Cs, linear_n1CW;
  at::Tensor has_linear_n1C;  // rows whose linear set is not empty
};
TileMasks MakeMasks(const Tiles& tiles, const AttentionForm& form, const at::Device& device);

// The first key of the sliding or terraced window of each position in a sequence of so many tokens,
// the sinks apart; may be negative.
at::Tensor WindowStart(const at::Tensor& positions, const AttentionForm& form, int64_t num_tokens);

// (B,H,T,n) -> (N,blocks,G,C,n), padded with `pad`.
at::Tensor FoldRows(const Tiles& tiles, const at::Tensor& x, int64_t groups, double pad);
// (N,blocks,G,C,n) -> (B,H,T,n), lying in memory as (B,T,H,n).
at::Tensor UnfoldRows(const Tiles& tiles, const at::Tensor& y, int64_t batch);
// (B,Y,T,n) -> (B Y,blocks,n,W): each block's band, a view of one padded copy.
at::Tensor Band(const Tiles& tiles, const at::Tensor& x, double pad);

}  // namespace tandem::attention
