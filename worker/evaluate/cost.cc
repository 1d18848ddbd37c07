#include "worker/evaluate/cost.h"

#include <sys/resource.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files.h"

namespace tandem {
namespace {

using nlohmann::json;

struct StepLine {
  std::string stage;
  double tokens = 0, seconds = 0;
};
using StepLines = std::map<std::pair<int64_t, int64_t>, StepLine>;  // by stage_index and step

double RealOf(const json& line, const char* key) {
  return line.contains(key) && line[key].is_number() ? line[key].get<double>() : 0;
}

void ReadAttempt(const std::string& path, StepLines* steps, double* all_seconds) {
  const Result<std::string> text = ReadFile(path);
  if (!text.ok()) return;
  std::istringstream lines(*text);
  for (std::string each; std::getline(lines, each);) {
    const json line = json::parse(each, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object() || !line.contains("stage_index") || !line.contains("step")) continue;
    if (!line["stage_index"].is_number_integer() || !line["step"].is_number_integer()) continue;
    StepLine step{line.value("stage", json()).is_string() ? line["stage"].get<std::string>() : "",
                  RealOf(line, "tokens"), RealOf(line, "seconds")};
    *all_seconds += step.seconds;
    (*steps)[{line["stage_index"].get<int64_t>(), line["step"].get<int64_t>()}] = std::move(step);
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
      cost.stages.push_back({step.stage, place.first, 0, 0});
    }
    cost.stages.back().tokens += step.tokens;
    cost.stages.back().seconds += step.seconds;
    cost.tokens += step.tokens;
    cost.seconds += step.seconds;
  }
  cost.repeated_seconds = all_seconds - cost.seconds;
  return cost;
}

double PeakResidentBytes() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<double>(usage.ru_maxrss) * 1024;  // Linux counts in KiB
}

}  // namespace tandem
