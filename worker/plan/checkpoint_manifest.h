// Checkpoint manifest: what makes a folder a committed checkpoint. JSON and base only: rank and
// agent both read it.
//
// <job>/checkpoints/e<epoch>/step-<global step>/ holds shard-<r>.safetensors and MANIFEST.json:
//   schema, job_uid, spec_sha256, base_sha256, epoch, stage_index, stage, stage_step, global_step,
//   layout {data, tensor}, parent, files [{name, bytes, crc32c, sha256}], last "sha256" over all
//   bytes before it
// Committed = no ".tmp" in the name and a manifest whose digest matches. A committed checkpoint
// never changes; one that does not verify is renamed to *.bad and its elder is taken. Blocking file
// work; no state, any thread; two processes may look at one job, only one (the holder of the newest
// epoch) may quarantine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem {

inline constexpr int kCheckpointSchema = 1;
inline constexpr const char* kCheckpointManifestName = "MANIFEST.json";

struct CheckpointFile {
  std::string name;  // no '/'
  int64_t bytes = 0;
  uint32_t crc32c = 0;
  std::string sha256;
};

struct CheckpointManifest {
  int schema = kCheckpointSchema;
  std::string job_uid;
  std::string spec_sha256;  // of the resolved spec: a checkpoint of another spec is never resumed
  std::string base_sha256;  // of the base model's config and weights; empty where not computed
  int64_t epoch = 0;
  int64_t stage_index = 0;  // among the plan's training stages
  std::string stage;        // its kind
  int64_t stage_step = 0;   // steps of that stage that are done
  int64_t global_step = 0;  // steps of all training stages that are done
  int64_t data_parallel = 1;
  int64_t tensor_parallel = 1;
  std::string parent;  // the checkpoint this attempt resumed from or wrote before, relative to
                       // checkpoints/; or ""
  std::vector<CheckpointFile> files;
};

// <job_folder>/checkpoints/e<epoch>
std::string CheckpointEpochFolder(const std::string& job_folder, int64_t epoch);
// "step-000000000120"
std::string CheckpointStepName(int64_t global_step);

// The file's text, its digest included; and back. kDataLoss when the digest does not match.
std::string CheckpointManifestToJson(const CheckpointManifest& manifest);
Result<CheckpointManifest> CheckpointManifestFromJson(const std::string& text,
                                                      const std::string& where);

// The name, bytes and digests of a file of the folder.
Result<CheckpointFile> DescribeCheckpointFile(const std::string& folder, const std::string& name);
// <folder>/MANIFEST.json, durably.
Status WriteCheckpointManifest(const std::string& folder, const CheckpointManifest& manifest);
Result<CheckpointManifest> ReadCheckpointManifest(const std::string& folder);
// Reads the manifest and every file it names: sizes, SHA-256. kDataLoss naming the first file that
// differs.
Result<CheckpointManifest> VerifyCheckpoint(const std::string& folder);

// The checkpoint to resume from, as an absolute folder: of the job's epochs below `below_epoch` the
// one with the most steps that verifies and belongs to `spec_sha256` (empty: any). Those that do
// not verify are renamed to *.bad on the way and listed in `quarantined` (may be null). None: the
// job starts anew.
Result<std::optional<std::string>> FindNewestCheckpoint(
    const std::string& job_folder, const std::string& spec_sha256, int64_t below_epoch,
    std::vector<std::string>* quarantined = nullptr);

}  // namespace tandem
