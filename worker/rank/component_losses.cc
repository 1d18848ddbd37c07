#include "worker/rank/component_losses.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <span>
#include <vector>

#include "worker/model/evaluation_forward.h"
#include "worker/model/plan_form.h"

namespace tandem {
namespace {

constexpr int64_t kGroup = 4;  // sequences that go through the model together

// Mean over this mode's sequences; each rank does the groups that are its turn, and all rows meet
// in one sum to which every other rank adds zero: the same bits for any number of ranks.
double MeanLoss(const Llama& model, const Parameters& parameters, const at::Tensor& ids_NT,
                const EvaluationOptions& options, Collective& collective) {
  const int64_t N = ids_NT.size(0);
  std::vector<double> losses(static_cast<size_t>(N), 0.0);
  for (int64_t first = 0; first < N; first += kGroup) {
    if (first / kGroup % collective.size() != collective.rank()) continue;
    const int64_t count = std::min(kGroup, N - first);
    const at::Tensor rows =
        EvaluateSequences(model, parameters, ids_NT.narrow(0, first, count), options)
            .losses.mean(1, /*keepdim=*/false, at::kDouble)
            .contiguous();
    std::copy_n(rows.const_data_ptr<double>(), count, losses.begin() + first);
  }
  collective.AllReduceSum(std::span<double>(losses));
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum / static_cast<double>(N);
}

}  // namespace

ComponentLosses MeasureComponents(const Plan& plan, const Llama& model,
                                  const Parameters& parameters, const TokenShard& validation,
                                  int64_t sequences, Collective& collective) {
  const int64_t T = plan.data.sequence_length, chunks = validation.NumChunks(T);
  const int64_t N = std::min(sequences, chunks);
  TORCH_CHECK(N >= 1, "data.validation has ", validation.num_tokens(),
              " tokens; one sequence needs more than data.sequence_length = ", T);
  const at::Tensor ids_NT = at::empty({N, T}, at::kLong);
  for (int64_t i = 0; i < N; ++i) {
    validation.ReadChunk(i * chunks / N, T, ids_NT.mutable_data_ptr<int64_t>() + i * T);
  }
  EvaluationOptions options;
  options.attention = AttentionFormOf(plan.attention);
  options.attention.window_gain = 1;  // as it is trained
  options.attention.cache_size = 0;
  const auto measure = [&](ComponentMode mode) {
    options.mode = mode;
    return MeanLoss(model, parameters, ids_NT, options, collective);
  };
  return {measure(ComponentMode::kHybrid), measure(ComponentMode::kWindowOnly),
          measure(ComponentMode::kLinearOnly)};
}

}  // namespace tandem
