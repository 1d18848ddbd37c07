// Quadratic work in linear memory: blocks of rows against all keys up to the block's end. Private
// to this folder.
//
// A block belongs to a piece (sequences and groups, general.h), so temporaries of (N,G,R,J) stay
// below the budget; N = pairs of sequence and group, G query heads of a group, R rows, J keys.
// Immutable; cannot fail.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "worker/model/attention/general.h"

namespace tandem::attention {

class RowBlock {
 public:
  RowBlock(const Piece& piece, int64_t groups, int64_t begin, int64_t end)
      : piece_(piece), groups_(groups), begin_(begin), end_(end) {}

  // (B,H,T,n) -> (N,G,R,n), H a multiple of K.
  at::Tensor Rows(const at::Tensor& x) const;
  // (B,K,T,n) -> (N,J,n).
  at::Tensor Keys(const at::Tensor& x) const;
  // (B,Y,T,n) -> (N,Y/K,J,n).
  at::Tensor HeadKeys(const at::Tensor& x) const;
  // (N,G,R,n) into its place in (B,H,T,n).
  void CopyRows(const at::Tensor& part, const at::Tensor& to) const;
  // Adds (N,J,n), or (N,G,J,n) for x of H heads, to its place.
  void AddKeys(const at::Tensor& part, const at::Tensor& to) const;
  // (H) -> (N,G,1,1).
  at::Tensor PerHead(const at::Tensor& of_heads) const;

  const Piece& piece() const { return piece_; }
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }

 private:
  at::Tensor Place(const at::Tensor& x, int64_t first, int64_t last) const;

  Piece piece_;
  int64_t groups_, begin_, end_;
};

// Calls body for every block of a (B,H,T,d) tensor and its (B,K,T,d) keys, ascending in rows within
// a piece.
void ForRowBlocks(const at::Tensor& q, const at::Tensor& k,
                  const std::function<void(const RowBlock&)>& body);

// q.k / sqrt(d) of a block, -inf after the row: (N,G,R,d), (N,J,d) -> (N,G,R,J).
at::Tensor CausalScores(const RowBlock& block, const at::Tensor& q, const at::Tensor& k);

// Positions of the block's rows (R,1) and of its keys (J).
at::Tensor RowPositions(const RowBlock& block, const at::Device& device);
at::Tensor KeyPositions(const RowBlock& block, const at::Device& device);

}  // namespace tandem::attention
