#include "worker/rank/retained_choice.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/log.h"
#include "worker/data/philox.h"
#include "worker/model/induction_score.h"
#include "worker/rank/failure.h"

namespace tandem {
namespace {

constexpr int64_t kSequences = 4;
constexpr int64_t kTokens = 128;  // per copy, of two

at::Tensor RandomTokens(const Plan& plan, const ModelConfig& config) {
  const int64_t n = std::min(kTokens, config.max_position_embeddings / 2);
  const PhiloxStream stream(plan.seed, /*stage_index=*/0, RandomPurpose::kInduction);
  at::Tensor ids = at::empty({kSequences, n}, at::kLong);
  int64_t* values = ids.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < ids.numel(); ++i) values[i] = stream.Below(config.vocab_size, i);
  return ids;
}

// {"scores", "retained"}; from the file where an earlier attempt chose.
std::string Choice(const Llama& model, const Plan& plan) {
  const std::string folder = JoinPath(plan.job_folder, "artifacts");
  const std::string path = JoinPath(folder, "retained.json");
  if (PathExists(path)) return ValueOr(ReadFile(path), RequireStorage);
  const InductionScoreTable scores = InductionScores(model, RandomTokens(plan, model.config()));
  const nlohmann::json choice = {{"scores", scores},
                                 {"retained", BestGroups(scores, plan.attention.retain_auto)}};
  RequireStorage(MakeFolders(folder));
  RequireStorage(WriteFileDurably(path, choice.dump()));
  Log(LogLevel::kInfo, "retained_chosen", {{"kv_groups", choice["retained"].dump()}});
  return choice.dump();
}

}  // namespace

std::string ChooseRetained(const Llama& model, Collective& collective, Plan& plan) {
  if (plan.attention.retain_auto == 0) return "";
  const int64_t groups = model.config().num_layers * model.config().num_kv_heads;
  if (plan.attention.retain_auto >= groups) {
    RequirePlan(InvalidArgument("attention.retain.auto is " +
                                std::to_string(plan.attention.retain_auto) + "; the model has " +
                                std::to_string(groups) + " groups, and one must be converted"));
  }
  std::string text;
  if (collective.rank() == 0) text = Choice(model, plan);
  const auto choice = nlohmann::json::parse(collective.Broadcast(text, 0));
  for (const auto& pair : choice.at("retained")) {
    plan.attention.retained.push_back({pair.at(0).get<int64_t>(), pair.at(1).get<int64_t>()});
  }
  return choice.at("scores").dump();
}

}  // namespace tandem
