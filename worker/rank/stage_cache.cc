#include "worker/rank/stage_cache.h"

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/files.h"
#include "base/log.h"

namespace tandem {
namespace {

// Raised when the same inputs no longer give the same parameters.
constexpr int kCacheVersion = 1;
constexpr int64_t kMaxMetricsBytes = int64_t{1} << 30;

std::string Name(const std::string& path) {
  return path.substr(path.find_last_of('/') + 1);
}

// The plan's own JSON says what a field's value is; what cannot matter to training is cut away: a
// form is trained with a window gain of 1, shared mixing and no cache (TrainedFormOf).
nlohmann::ordered_json InputsOf(const Plan& plan, int64_t stage_index) {
  const auto json = nlohmann::ordered_json::parse(PlanToJson(plan));
  auto attention = json["attention"];
  for (const char* key : {"window_gain", "cache_size", "mixing_kind", "retain_auto"}) {
    attention.erase(key);
  }
  auto stages = nlohmann::ordered_json::array();
  for (int64_t i = 0; i <= stage_index; ++i) {
    stages.push_back(json["stages"][static_cast<size_t>(i)]);
  }
  nlohmann::ordered_json inputs = {
      {"version", kCacheVersion}, {"attention", attention}, {"stages", stages}};
  for (const char* key : {"seed", "ranks", "threads_per_rank", "device", "base_dtype"}) {
    inputs[key] = json[key];
  }
  inputs["sequence_length"] = plan.data.sequence_length;
  inputs["document_mask"] = plan.data.document_mask;
  inputs["tokens"] = Name(plan.data.tokens);  // prepare names the folder by its content
  return inputs;
}

}  // namespace

StageCache::StageCache(const Plan& plan, const std::string& base_sha256, int64_t max_bytes)
    : plan_(plan), base_sha256_(base_sha256), max_bytes_(max_bytes) {}

std::string StageCache::KeyOf(int64_t stage_index) const {
  if (plan_.stage_cache.empty()) return "";
  nlohmann::ordered_json inputs = InputsOf(plan_, stage_index);
  inputs["base"] = base_sha256_;
  return Sha256Hex(inputs.dump());
}

StageCache::Entry StageCache::Load(const std::string& key) const {
  const std::string folder = JoinPath(plan_.stage_cache, key);
  if (key.empty()) return {};
  Entry entry;
  entry.lease = FolderLease(folder);
  if (!entry.lease.held()) return {};
  auto loaded = LoadCheckpoint(JoinPath(folder, "state"));
  auto metrics = ReadFile(JoinPath(folder, "metrics.jsonl"), kMaxMetricsBytes);
  if (!loaded.ok() || !metrics.ok()) {
    const Status& why = loaded.ok() ? metrics.status() : loaded.status();
    Log(LogLevel::kWarning, "stage_cache_entry_broken",
        {{"folder", folder}, {"why", why.message()}});
    return {};
  }
  entry.tensors = std::move(loaded->tensors);
  entry.metrics = std::move(*metrics);
  return entry;
}

void StageCache::Store(const std::string& key, int64_t stage_index, const NamedTensors& tensors,
                       const std::string& metrics) const {
  const std::string folder = JoinPath(plan_.stage_cache, key);
  if (key.empty() || PathExists(folder)) return;
  const std::string aside = folder + ".tmp-" + plan_.job_uid + "-" + std::to_string(plan_.epoch);
  const auto write = [&]() -> Status {
    TANDEM_RETURN_IF_ERROR(RemoveTree(aside));
    TANDEM_RETURN_IF_ERROR(MakeFolders(aside));
    CheckpointTarget target;
    target.job_folder = JoinPath(aside, "made");
    target.job_uid = key;
    target.spec_sha256 = key;
    target.base_sha256 = base_sha256_;
    target.epoch = 1;
    const StagePlan& stage = plan_.stages[static_cast<size_t>(stage_index)];
    TANDEM_RETURN_IF_ERROR(MakeFolders(target.job_folder));
    TANDEM_ASSIGN_OR_RETURN(
        const SavedCheckpoint saved,
        SaveCheckpoint(target, {stage_index, stage.kind, stage.steps, stage.steps}, tensors));
    TANDEM_RETURN_IF_ERROR(RenameDurably(saved.folder, JoinPath(aside, "state")));
    TANDEM_RETURN_IF_ERROR(WriteFileDurably(JoinPath(aside, "metrics.jsonl"), metrics));
    return RenameDurably(aside, folder);
  };
  const Status written = write();
  if (written.ok()) {
    Log(LogLevel::kInfo, "stage_cached", {{"folder", folder}});
    PruneCache(plan_.stage_cache, max_bytes_, key);
    return;
  }
  // Another job was faster, or the disk is full: the job itself has lost nothing.
  const Status removed = RemoveTree(aside);
  if (PathExists(folder)) return;
  Log(LogLevel::kWarning, "stage_not_cached",
      {{"folder", folder}, {"why", written.message()}, {"left_over", removed.message()}});
}

}  // namespace tandem
