#include "worker/evaluate/estimate.h"

#include "base/files.h"
#include "worker/data/json_file.h"

namespace tandem {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

ordered_json StageJson(const StageEstimate& stage) {
  ordered_json out = {{"stage", stage.stage}, {"stage_index", stage.stage_index}};
  if (stage.steps > 0) out["steps"] = stage.steps;
  out["tokens"] = stage.tokens;
  if (stage.flop_per_second > 0) {
    out["flop_per_token"] = stage.flop_per_token;
    out["flop_per_second"] = stage.flop_per_second;
  }
  out["seconds"] = stage.seconds();
  out["memory_bytes"] = stage.memory_bytes;
  return out;
}

StageEstimate StageOf(const json& entry) {
  return {TextOf(entry, "stage"),          IntegerOf(entry, "stage_index", 0),
          IntegerOf(entry, "steps", 0),    RealOf(entry, "tokens"),
          RealOf(entry, "flop_per_token"), RealOf(entry, "flop_per_second"),
          RealOf(entry, "memory_bytes"),   RealOf(entry, "seconds")};
}

}  // namespace

std::string EstimatePath(const std::string& job_folder) {
  return JoinPath(job_folder, "artifacts/estimate.json");
}

Status WriteEstimate(const std::string& job_folder, const Estimate& estimate) {
  ordered_json stages = ordered_json::array();
  double seconds = 0;
  for (const StageEstimate& stage : estimate.stages) {
    stages.push_back(StageJson(stage));
    seconds += stage.seconds();
  }
  const ordered_json root = {{"version", 1},
                             {"ranks", estimate.ranks},
                             {"device", estimate.device},
                             {"seconds", seconds},
                             {"stages", std::move(stages)}};
  TANDEM_RETURN_IF_ERROR(MakeFolders(JoinPath(job_folder, "artifacts")));
  return WriteFileDurably(EstimatePath(job_folder), root.dump(1) + "\n");
}

Estimate ReadEstimate(const std::string& job_folder) {
  Estimate estimate;
  const Result<json> root = ReadJsonObject(EstimatePath(job_folder));
  if (!root.ok()) return estimate;
  estimate.ranks = IntegerOf(*root, "ranks", 0);
  estimate.device = TextOf(*root, "device");
  for (const json& entry : ListOf(*root, "stages")) {
    if (entry.is_object()) estimate.stages.push_back(StageOf(entry));
  }
  return estimate;
}

}  // namespace tandem
