#include "worker/model/attention/retention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace tandem::attention {
namespace {

at::Tensor IndexOf(const std::vector<int64_t>& values, const at::Tensor& like) {
  const at::Tensor index = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), index.mutable_data_ptr<int64_t>());
  return index.to(like.device());
}

std::vector<int64_t> HeadsOf(const std::vector<int64_t>& groups, int64_t group_size) {
  std::vector<int64_t> heads;
  for (int64_t group : groups)
    for (int64_t i = 0; i < group_size; ++i) heads.push_back(group * group_size + i);
  return heads;
}

at::Tensor Select(const at::Tensor& x, int64_t dim, const at::Tensor& index) {
  return x.defined() ? x.index_select(dim, index) : x;
}

}  // namespace

HeadSplit::HeadSplit(const at::Tensor& q, const at::Tensor& k, const LayerRetention& retained)
    : heads_(q.size(1)), kv_heads_(k.size(1)) {
  const int64_t group_size = heads_ / kv_heads_;
  std::vector<int64_t> converted;
  for (int64_t group = 0; group < kv_heads_; ++group)
    if (std::find(retained.begin(), retained.end(), group) == retained.end())
      converted.push_back(group);
  TORCH_CHECK(std::is_sorted(retained.begin(), retained.end()) &&
                  converted.size() + retained.size() == static_cast<size_t>(kv_heads_),
              "retained KV groups ", at::IntArrayRef(retained),
              "; must be distinct, ascending and in [0, ", kv_heads_, ")");
  retained_groups_ = IndexOf(retained, q);
  converted_groups_ = IndexOf(converted, q);
  std::vector<int64_t> order = HeadsOf(converted, group_size);
  converted_heads_ = IndexOf(order, q);
  const std::vector<int64_t> kept = HeadsOf(retained, group_size);
  retained_heads_ = IndexOf(kept, q);
  order.insert(order.end(), kept.begin(), kept.end());
  std::vector<int64_t> place(order.size());
  for (size_t i = 0; i < order.size(); ++i)
    place[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  place_ = IndexOf(place, q);
}

at::Tensor HeadSplit::RetainedQueries(const at::Tensor& q) const {
  return q.index_select(1, retained_heads_);
}

at::Tensor HeadSplit::RetainedKeys(const at::Tensor& k_or_v) const {
  return k_or_v.index_select(1, retained_groups_);
}

AttentionCall HeadSplit::Converted(const AttentionCall& call) const {
  AttentionCall part = call;
  part.retained.clear();
  part.q = Select(call.q, 1, converted_heads_);
  part.k = Select(call.k, 1, converted_groups_);
  part.v = Select(call.v, 1, converted_groups_);
  part.k_linear = Select(call.k_linear, 1, converted_groups_);
  part.v_linear = Select(call.v_linear, 1, converted_groups_);
  const auto of_map = [&](const at::Tensor& x) {
    return x.defined() && x.size(0) != heads_ ? converted_groups_ : converted_heads_;
  };
  part.w_q = Select(call.w_q, 0, converted_heads_);
  part.b_q = Select(call.b_q, 0, converted_heads_);
  part.w_k = Select(call.w_k, 0, of_map(call.w_k));
  part.b_k = Select(call.b_k, 0, of_map(call.b_k));
  part.gamma = Select(call.gamma, 0, converted_heads_);
  return part;
}

at::Tensor HeadSplit::Join(const at::Tensor& converted, const at::Tensor& retained) const {
  return at::cat({converted.transpose(1, 2), retained.transpose(1, 2)}, 2)
      .index_select(2, place_)
      .transpose(1, 2);
}

at::Tensor HeadSplit::ConvertedHeads(const at::Tensor& of_layer) const {
  return Select(of_layer, 1, converted_heads_);
}

at::Tensor HeadSplit::ConvertedFactors(const at::Tensor& theta_H) const {
  return Select(theta_H, 0, converted_heads_);
}

at::Tensor HeadSplit::Spread(const at::Tensor& gradient) const {
  if (!gradient.defined()) return gradient;
  const bool by_head = gradient.size(0) == converted_heads_.numel();
  std::vector<int64_t> shape = gradient.sizes().vec();
  shape[0] = by_head ? heads_ : kv_heads_;
  return at::zeros(shape, gradient.options())
      .index_copy(0, by_head ? converted_heads_ : converted_groups_, gradient);
}

}  // namespace tandem::attention
