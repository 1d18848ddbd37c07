#include "worker/model/attention/row_blocks.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tandem::attention {
namespace {

// Rows at a time where even one group exceeds the budget.
constexpr int64_t kFewestRows = 16;
// Tensors of a block that live at once, forward and backward.
constexpr int64_t kTemporaries = 6;

}  // namespace

at::Tensor RowBlock::Place(const at::Tensor& x, int64_t first, int64_t last) const {
  const int64_t each = x.size(1) / groups_;
  return x.narrow(0, piece_.batch_begin, piece_.batch_end - piece_.batch_begin)
      .narrow(1, piece_.group_begin * each, (piece_.group_end - piece_.group_begin) * each)
      .narrow(2, first, last - first);
}

at::Tensor RowBlock::Rows(const at::Tensor& x) const {
  const int64_t each = x.size(1) / groups_;
  return Place(x, begin_, end_).unflatten(1, {-1, each}).flatten(0, 1);
}

at::Tensor RowBlock::Keys(const at::Tensor& x) const {
  return Place(x, 0, end_).flatten(0, 1);
}

at::Tensor RowBlock::HeadKeys(const at::Tensor& x) const {
  const int64_t each = x.size(1) / groups_;
  return Place(x, 0, end_).unflatten(1, {-1, each}).flatten(0, 1);
}

void RowBlock::CopyRows(const at::Tensor& part, const at::Tensor& to) const {
  const at::Tensor place = Place(to, begin_, end_);
  place.copy_(part.reshape(place.sizes()));
}

void RowBlock::AddKeys(const at::Tensor& part, const at::Tensor& to) const {
  const at::Tensor place = Place(to, 0, end_);
  place.add_(part.reshape(place.sizes()));
}

at::Tensor RowBlock::PerHead(const at::Tensor& of_heads) const {
  const int64_t each = of_heads.size(0) / groups_, g = piece_.group_end - piece_.group_begin;
  const int64_t b = piece_.batch_end - piece_.batch_begin;
  return of_heads.narrow(0, piece_.group_begin * each, g * each)
      .view({1, g, each, 1, 1})
      .expand({b, g, each, 1, 1})
      .flatten(0, 1);
}

void ForRowBlocks(const at::Tensor& q, const at::Tensor& k,
                  const std::function<void(const RowBlock&)>& body) {
  const int64_t T = q.size(2), groups = k.size(1), G = q.size(1) / groups;
  const int64_t row_elements = kTemporaries * G * T;
  const auto pieces = SplitPieces(q, q.size(0), groups, row_elements * std::min(T, int64_t{64}));
  for (const Piece& piece : pieces) {
    const int64_t pairs =
        (piece.batch_end - piece.batch_begin) * (piece.group_end - piece.group_begin);
    const int64_t fit = ElementBudget(q) / (pairs * row_elements);
    const int64_t rows = std::clamp(fit, std::min(T, kFewestRows), T);
    for (int64_t begin = 0; begin < T; begin += rows)
      body(RowBlock(piece, groups, begin, std::min(begin + rows, T)));
  }
}

at::Tensor RowPositions(const RowBlock& block, const at::Device& device) {
  return at::arange(block.begin(), block.end(), at::TensorOptions().dtype(at::kLong).device(device))
      .unsqueeze(1);
}

at::Tensor KeyPositions(const RowBlock& block, const at::Device& device) {
  return at::arange(block.end(), at::TensorOptions().dtype(at::kLong).device(device));
}

at::Tensor CausalScores(const RowBlock& block, const at::Tensor& q, const at::Tensor& k) {
  const double tau = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor later = KeyPositions(block, q.device()).gt(RowPositions(block, q.device()));
  return at::bmm(q.mul(tau).flatten(1, 2), k.transpose(1, 2))
      .unflatten(1, {q.size(1), q.size(2)})
      .masked_fill(later, -std::numeric_limits<double>::infinity());
}

}  // namespace tandem::attention
