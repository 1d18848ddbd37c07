#include "worker/model/induction_score.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "worker/model/attention/attention.h"

namespace tandem {
namespace {

// (K) float64: of one layer, n tokens per copy. Row n+i reads key i+1, i = 0 ... n-2.
at::Tensor ScoresOfLayer(const QkvTensors& in, const at::Tensor& lse_BHT, int64_t n) {
  const int64_t groups = in.k.size(1), rows = n - 1;
  const double tau = 1.0 / std::sqrt(static_cast<double>(in.q.size(3)));
  const at::Tensor query = in.q.narrow(2, n, rows).unflatten(1, {groups, -1});  // (B,K,G,n-1,d)
  const at::Tensor key = in.k.narrow(2, 1, rows).unsqueeze(2);
  const at::Tensor lse = lse_BHT.narrow(2, n, rows).unflatten(1, {groups, -1});
  const at::Tensor weight = at::exp(query.mul(key).sum(-1).mul(tau).sub(lse));
  return weight.mean(std::array<int64_t, 2>{0, 3}, false, at::kDouble).amax(-1);
}

}  // namespace

InductionScoreTable InductionScores(const Llama& model, const at::Tensor& ids_Bn) {
  TORCH_CHECK(ids_Bn.dim() == 2 && ids_Bn.size(1) >= 2, "ids must be (B,n) with n >= 2, not ",
              ids_Bn.sizes());
  const at::NoGradGuard no_gradients;
  const int64_t n = ids_Bn.size(1);
  at::Tensor x = model.Embed(at::cat({ids_Bn, ids_Bn}, 1));
  InductionScoreTable table;
  for (int64_t i = 0; i < model.config().num_layers; ++i) {
    const QkvTensors in = model.Qkv(x, i, nullptr);
    const SoftmaxResult teacher = CausalSoftmax(in.q, in.k, in.v);
    const at::Tensor scores = ScoresOfLayer(in, teacher.lse_BHT, n).cpu().contiguous();
    const double* values = scores.const_data_ptr<double>();
    table.emplace_back(values, values + scores.numel());
    if (i + 1 < model.config().num_layers) x = model.FinishLayer(x, teacher.out_BHTd, i, nullptr);
  }
  return table;
}

std::vector<std::pair<int64_t, int64_t>> BestGroups(const InductionScoreTable& scores,
                                                    int64_t count) {
  std::vector<std::pair<int64_t, int64_t>> all;
  for (size_t layer = 0; layer < scores.size(); ++layer)
    for (size_t group = 0; group < scores[layer].size(); ++group)
      all.emplace_back(static_cast<int64_t>(layer), static_cast<int64_t>(group));
  const auto score = [&](const std::pair<int64_t, int64_t>& place) {
    return scores[static_cast<size_t>(place.first)][static_cast<size_t>(place.second)];
  };
  std::stable_sort(all.begin(), all.end(),
                   [&](const auto& a, const auto& b) { return score(a) > score(b); });
  all.resize(std::min(all.size(), static_cast<size_t>(std::max<int64_t>(0, count))));
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace tandem
