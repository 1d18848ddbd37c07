#include "worker/evaluate/cost.h"

#include <algorithm>
#include <map>
#include <sstream>

#include "base/files.h"
#include "worker/data/json_file.h"

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

std::vector<int64_t> EpochsOf(const std::string& folder) {
  std::vector<int64_t> epochs;
  const Result<std::vector<std::string>> names = ListFolder(folder);
  if (!names.ok()) return epochs;
  for (const std::string& name : *names) {
    const bool is_number =
        !name.empty() && name.size() < 10 &&
        std::all_of(name.begin(), name.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
    if (is_number) epochs.push_back(std::stoll(name));
  }
  std::sort(epochs.begin(), epochs.end());
  return epochs;
}

}  // namespace

Cost TrainingCost(const std::string& job_folder) {
  const std::string attempts = JoinPath(job_folder, "attempts");
  StepLines steps;
  double all_seconds = 0;
  for (const int64_t epoch : EpochsOf(attempts)) {
    const std::string folder = JoinPath(attempts, std::to_string(epoch));
    ReadAttempt(JoinPath(folder, "metrics.jsonl"), &steps, &all_seconds);
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
