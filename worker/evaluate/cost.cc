#include "worker/evaluate/cost.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "base/files.h"
#include "worker/data/json_file.h"
#include "worker/evaluate/cost_json.h"
#include "worker/plan/attempt_folders.h"

namespace tandem {
namespace {

using nlohmann::json;

struct StepLine {
  std::string stage;
  double tokens = 0, seconds = 0, peak_memory_bytes = 0;
  bool reused = false;
};
using StepLines = std::map<std::pair<int64_t, int64_t>, StepLine>;  // by stage_index and step

void ReadAttempt(const std::string& path, StepLines* steps, double* all_seconds) {
  const Result<std::string> text = ReadFile(path);
  if (!text.ok()) return;
  std::istringstream lines(*text);
  for (std::string each; std::getline(lines, each);) {
    const json line = json::parse(each, nullptr, /*allow_exceptions=*/false);
    const int64_t stage_index = IntegerOf(line, "stage_index"),
                  step_index = IntegerOf(line, "step");
    if (stage_index < 0 || step_index < 0) continue;
    StepLine step{TextOf(line, "stage"), RealOf(line, "tokens"), RealOf(line, "seconds"),
                  RealOf(line, "peak_memory_bytes"), MemberOf(line, "reused") == true};
    *all_seconds += step.seconds;
    (*steps)[{stage_index, step_index}] = std::move(step);
  }
}

std::optional<StageCost> ReadPrepareCost(const std::string& path) {
  const Result<json> root = ReadJsonObject(path);
  if (!root.ok()) return std::nullopt;
  StageCost cost;
  cost.stage = "prepare";
  cost.stage_index = kPrepareIndex;
  cost.tokens = RealOf(*root, "tokens");
  cost.seconds = RealOf(*root, "seconds");
  cost.peak_memory_bytes = RealOf(*root, "peak_memory_bytes");
  cost.reused = MemberOf(*root, "cached") == true;
  const json& expected = MemberOf(*root, "estimate");
  if (cost.reused || !expected.is_object()) return cost;
  cost.estimate.emplace();
  cost.estimate->stage = cost.stage;
  cost.estimate->stage_index = kPrepareIndex;
  cost.estimate->tokens = RealOf(expected, "tokens");
  cost.estimate->given_seconds = RealOf(expected, "seconds");
  cost.estimate->memory_bytes = RealOf(expected, "memory_bytes");
  return cost;
}

}  // namespace

std::optional<StageCost> PrepareCost(const std::string& job_folder) {
  std::optional<StageCost> found;
  for (const int64_t epoch : AttemptEpochs(job_folder)) {
    std::optional<StageCost> cost = ReadPrepareCost(PrepareCostPath(job_folder, epoch));
    if (cost && (!found || found->reused)) found = std::move(cost);
  }
  return found;
}

Status WriteExportCost(const std::string& job_folder, const StageCost& exported) {
  Cost cost;
  cost.stages.push_back(exported);
  AddEstimates(ReadEstimate(job_folder), &cost);
  return WriteFileDurably(JoinPath(job_folder, "artifacts/export_cost.json"),
                          StageCostJson(cost.stages[0]).dump(1) + "\n");
}

Cost TrainingCost(const std::string& job_folder) {
  StepLines steps;
  double all_seconds = 0;
  for (const int64_t epoch : AttemptEpochs(job_folder)) {
    ReadAttempt(MetricsPath(job_folder, epoch), &steps, &all_seconds);
  }
  Cost cost;
  for (const auto& [place, step] : steps) {
    if (cost.stages.empty() || cost.stages.back().stage_index != place.first) {
      cost.stages.emplace_back();
      cost.stages.back().stage = step.stage;
      cost.stages.back().stage_index = place.first;
    }
    StageCost& stage = cost.stages.back();
    stage.steps = std::max(stage.steps, place.second);
    stage.tokens += step.tokens;
    stage.seconds += step.seconds;
    stage.peak_memory_bytes = std::max(stage.peak_memory_bytes, step.peak_memory_bytes);
    stage.reused = stage.reused || step.reused;
    cost.tokens += step.tokens;
    cost.seconds += step.seconds;
  }
  cost.repeated_seconds = all_seconds - cost.seconds;
  return cost;
}

void AddEstimates(const Estimate& estimate, Cost* cost) {
  for (StageCost& stage : cost->stages) {
    for (const StageEstimate& expected : estimate.stages) {
      if (expected.stage_index == stage.stage_index) stage.estimate = expected;
    }
  }
}

std::optional<double> RelativeError(double actual, double expected) {
  if (!(actual > 0) || !(expected > 0)) return std::nullopt;
  return actual / expected - 1;
}

}  // namespace tandem
