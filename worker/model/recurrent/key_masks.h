// Heads in groups, and which keys a row must not see: what softmax and linear sums have in common.
//
// Query heads of one key/value group are put below each other as rows of one product, so that keys
// and values are never repeated. Pure functions; any device; forward only. Shapes: B sequences, H
// query heads, K key/value heads, G = H/K, r rows, m keys, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "worker/model/recurrent/layer_memory.h"

namespace tandem {

inline constexpr float kHidden = -std::numeric_limits<float>::infinity();

// Whether row `row` (its position) sees the key at `index`.
using Sees = std::function<bool(int64_t row, int64_t index)>;
// (r,m) bool, true: hidden. Rows are at positions first_row ...
at::Tensor HiddenKeys(int64_t first_row, int64_t rows, int64_t keys, const Sees& sees,
                      at::Device device);
// (r,r) bool: the tokens of a part that come after each row; undefined for one row, which has none.
at::Tensor HiddenLater(int64_t rows, at::Device device);
// Writes -inf into scores (B,H,r,m).
void HideKeys(const at::Tensor& scores, int64_t first_row, const Sees& sees);

// (B,H,r,x) <-> (B,groups,H/groups r,x).
at::Tensor ByGroup(const at::Tensor& x_BHrx, int64_t groups);
at::Tensor ByHead(const at::Tensor& x, int64_t heads);
// (B,K,m,x) -> (B,heads,m,x), repeated inside each group; as it is when there is nothing to repeat.
at::Tensor PerHead(const at::Tensor& x_BKmx, int64_t heads);

// q.k / sqrt(d): (B,H,r,d) and (B,K,m,d) to (B,H,r,m); weights (B,H,r,m) times v (B,K,m,d).
at::Tensor Scores(const at::Tensor& q, const at::Tensor& k);
at::Tensor WeightedValues(const at::Tensor& weights, const at::Tensor& v);

// Causal softmax of the last r tokens, q (B,H,r,d), over all of full_k, full_v, theirs included:
// memory.position is the first row's.
at::Tensor AttendFull(const at::Tensor& q, const LayerMemory& memory);

// Dimension 1, `size` heads per group: only those of `groups`.
at::Tensor OfGroups(const at::Tensor& x, const std::vector<int64_t>& groups, int64_t size);
// The inverse, from two parts that have every group between them.
struct GroupPart {
  const std::vector<int64_t>& groups;
  at::Tensor x;
};
at::Tensor JoinGroups(const GroupPart& a, const GroupPart& b, int64_t size);

}  // namespace tandem
