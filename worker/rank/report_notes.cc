#include "worker/rank/report_notes.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "worker/rank/failure.h"
#include "worker/rank/metrics_history.h"

namespace tandem {
namespace {

std::string ArtifactsFolder(const Plan& plan) {
  return JoinPath(plan.job_folder, "artifacts");
}

// Beside report.json.
std::string EarlyStopPath(const Plan& plan) {
  return JoinPath(ArtifactsFolder(plan), "early_stop.json");
}

}  // namespace

void WriteEarlyStop(const Plan& plan, const EarlyStop& stop, int64_t stage_index) {
  RequireStorage(MakeFolders(ArtifactsFolder(plan)));
  RequireStorage(WriteFileDurably(EarlyStopPath(plan), stop.ToJson(stage_index)));
}

std::map<std::string, std::string> ReportNotes(const Plan& plan, const std::string& retain_scores) {
  std::map<std::string, std::string> notes;
  const std::string early_stop = EarlyStopPath(plan);
  if (PathExists(early_stop)) notes["early_stop"] = ValueOr(ReadFile(early_stop), RequireStorage);
  if (!retain_scores.empty()) notes["retain_scores"] = retain_scores;
  const auto history = ValueOr(ReadMetricsHistory(plan.job_folder, plan.epoch), RequireStorage);
  auto diverged = nlohmann::json::array(), transfers = nlohmann::json::array();
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const std::string words = DivergenceWords(history, static_cast<int64_t>(i));
    if (!words.empty()) diverged.push_back(words);
    const std::string told = TransferDivergence(history, static_cast<int64_t>(i));
    if (!told.empty()) transfers.push_back(nlohmann::json::parse(told));
  }
  if (!transfers.empty()) notes["transfer_divergence"] = transfers.dump();
  if (!diverged.empty()) notes["divergence"] = diverged.dump();
  return notes;
}

}  // namespace tandem
