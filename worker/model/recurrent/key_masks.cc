#include "worker/model/recurrent/key_masks.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include <cmath>

namespace tandem {

at::Tensor HiddenKeys(int64_t first_row, int64_t rows, int64_t keys, const Sees& sees,
                      at::Device device) {
  const at::Tensor hidden = at::empty({rows, keys}, at::kBool);
  bool* value = hidden.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < keys; ++j) *value++ = !sees(first_row + i, j);
  }
  return hidden.to(device);
}

at::Tensor HiddenLater(int64_t rows, at::Device device) {
  if (rows == 1) return {};
  return HiddenKeys(
      0, rows, rows, [](int64_t row, int64_t index) { return index <= row; }, device);
}

void HideKeys(const at::Tensor& scores, int64_t first_row, const Sees& sees) {
  scores.masked_fill_(HiddenKeys(first_row, scores.size(2), scores.size(3), sees, scores.device()),
                      kHidden);
}

at::Tensor ByGroup(const at::Tensor& x_BHrx, int64_t groups) {
  return x_BHrx.reshape(
      {x_BHrx.size(0), groups, x_BHrx.size(1) / groups * x_BHrx.size(2), x_BHrx.size(3)});
}

at::Tensor ByHead(const at::Tensor& x, int64_t heads) {
  return x.reshape({x.size(0), heads, x.size(1) * x.size(2) / heads, x.size(3)});
}

at::Tensor PerHead(const at::Tensor& x_BKmx, int64_t heads) {
  const int64_t B = x_BKmx.size(0), K = x_BKmx.size(1), m = x_BKmx.size(2), x = x_BKmx.size(3);
  if (K == heads) return x_BKmx;
  return x_BKmx.unsqueeze(2).expand({B, K, heads / K, m, x}).reshape({B, heads, m, x});
}

at::Tensor Scores(const at::Tensor& q, const at::Tensor& k) {
  const double tau = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const at::Tensor rows = ByGroup(q.mul(tau), k.size(1));
  return ByHead(at::matmul(rows, k.transpose(2, 3)), q.size(1));
}

at::Tensor WeightedValues(const at::Tensor& weights, const at::Tensor& v) {
  return ByHead(at::matmul(ByGroup(weights, v.size(1)), v), weights.size(1));
}

at::Tensor AttendFull(const at::Tensor& q, const LayerMemory& memory) {
  const int64_t first_row = memory.position, rows = q.size(2), count = first_row + rows;
  const at::Tensor scores = Scores(q, memory.full_k.narrow(2, 0, count));
  if (rows > 1) {
    scores.narrow(3, first_row, rows).masked_fill_(HiddenLater(rows, scores.device()), kHidden);
  }
  return WeightedValues(at::softmax(scores, -1), memory.full_v.narrow(2, 0, count));
}

at::Tensor OfGroups(const at::Tensor& x, const std::vector<int64_t>& groups, int64_t size) {
  if (static_cast<int64_t>(groups.size()) * size == x.size(1)) return x;
  std::vector<at::Tensor> parts;
  for (const int64_t group : groups) parts.push_back(x.narrow(1, group * size, size));
  return at::cat(parts, 1);
}

at::Tensor JoinGroups(const GroupPart& a, const GroupPart& b, int64_t size) {
  std::vector<at::Tensor> heads(a.groups.size() + b.groups.size());
  for (const GroupPart* part : {&a, &b}) {
    for (size_t i = 0; i < part->groups.size(); ++i) {
      heads[static_cast<size_t>(part->groups[i])] =
          part->x.narrow(1, static_cast<int64_t>(i) * size, size);
    }
  }
  return at::cat(heads, 1);
}

}  // namespace tandem
