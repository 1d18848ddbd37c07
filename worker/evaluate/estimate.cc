#include "worker/evaluate/estimate.h"

#include <nlohmann/json.hpp>

#include "base/files.h"

namespace tandem {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

double RealOf(const json& object, const char* key) {
  return object.contains(key) && object[key].is_number() ? object[key].get<double>() : 0;
}
int64_t IntegerOf(const json& object, const char* key) {
  return object.contains(key) && object[key].is_number_integer() ? object[key].get<int64_t>() : 0;
}
std::string TextOf(const json& object, const char* key) {
  return object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

ordered_json StageJson(const StageEstimate& stage) {
  ordered_json out = {{"stage", stage.stage}, {"stage_index", stage.stage_index}};
  if (stage.steps > 0) out["steps"] = stage.steps;
  out["tokens"] = stage.tokens;
  out["flop_per_token"] = stage.flop_per_token;
  out["flop_per_second"] = stage.flop_per_second;
  out["seconds"] = stage.seconds();
  out["memory_bytes"] = stage.memory_bytes;
  return out;
}

StageEstimate StageOf(const json& entry) {
  return {TextOf(entry, "stage"),          IntegerOf(entry, "stage_index"),
          IntegerOf(entry, "steps"),       RealOf(entry, "tokens"),
          RealOf(entry, "flop_per_token"), RealOf(entry, "flop_per_second"),
          RealOf(entry, "memory_bytes")};
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
  const Result<std::string> text = ReadFile(EstimatePath(job_folder));
  if (!text.ok()) return estimate;
  const json root = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || !root.contains("stages") || !root["stages"].is_array()) return estimate;
  estimate.ranks = IntegerOf(root, "ranks");
  estimate.device = TextOf(root, "device");
  for (const json& entry : root["stages"]) {
    if (entry.is_object()) estimate.stages.push_back(StageOf(entry));
  }
  return estimate;
}

}  // namespace tandem
