#include "worker/plan/attempt_folders.h"

#include <algorithm>

#include "base/files.h"

namespace tandem {

std::vector<int64_t> AttemptEpochs(const std::string& job_folder) {
  std::vector<int64_t> epochs;
  const auto names = ListFolder(JoinPath(job_folder, "attempts"));
  if (!names.ok()) return epochs;
  for (const std::string& name : *names) {
    const bool is_number = !name.empty() && name.size() < 18 &&
                           name.find_first_not_of("0123456789") == std::string::npos;
    if (is_number) epochs.push_back(std::stoll(name));
  }
  std::sort(epochs.begin(), epochs.end());
  return epochs;
}

std::string MetricsPath(const std::string& job_folder, int64_t epoch) {
  return JoinPath(job_folder, "attempts/" + std::to_string(epoch) + "/metrics.jsonl");
}

std::string PrepareCostPath(const std::string& job_folder, int64_t epoch) {
  return JoinPath(job_folder, "attempts/" + std::to_string(epoch) + "/prepare_cost.json");
}

}  // namespace tandem
