#include "worker/checkpoint/checkpoint_folder.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <tuple>

#include "base/digest.h"
#include "base/files.h"

namespace tandem {
namespace {

constexpr const char* kShardName = "shard-0.safetensors";
constexpr const char* kStepPrefix = "step-";

// "e3/step-000000000120", so that the work folder may move.
std::string RelativeToCheckpoints(const std::string& folder) {
  const std::filesystem::path path(folder);
  return folder.empty() ? "" : JoinPath(path.parent_path().filename(), path.filename());
}

// An fsync of the disk that is full must not look like a broken one.
Status SayWhatToDo(const Status& status) {
  if (status.code() != Code::kResourceExhausted) return status;
  return ResourceExhausted("the checkpoint was not written: " + status.message() +
                           "; older checkpoints stay in force; free space in the work folder");
}

Result<SavedCheckpoint> Describe(const std::string& folder, const CheckpointManifest& manifest) {
  SavedCheckpoint saved;
  saved.folder = folder;
  TANDEM_ASSIGN_OR_RETURN(saved.manifest_sha256,
                          Sha256OfFile(JoinPath(folder, kCheckpointManifestName)));
  for (const CheckpointFile& file : manifest.files) saved.bytes += file.bytes;
  return saved;
}

CheckpointManifest MakeManifest(const CheckpointTarget& target, const CheckpointCursor& cursor,
                                CheckpointFile file) {
  CheckpointManifest manifest;
  manifest.job_uid = target.job_uid;
  manifest.spec_sha256 = target.spec_sha256;
  manifest.base_sha256 = target.base_sha256;
  manifest.epoch = target.epoch;
  manifest.stage_index = cursor.stage_index;
  manifest.stage = cursor.stage;
  manifest.stage_step = cursor.stage_step;
  manifest.global_step = cursor.global_step;
  manifest.data_parallel = target.data_parallel;
  manifest.parent = RelativeToCheckpoints(target.parent);
  manifest.files.push_back(std::move(file));
  return manifest;
}

Result<SavedCheckpoint> WriteInto(const std::string& aside, const std::string& folder,
                                  const CheckpointTarget& target, const CheckpointCursor& cursor,
                                  const std::vector<TensorView>& tensors) {
  TANDEM_RETURN_IF_ERROR(MakeFolders(aside));
  TANDEM_RETURN_IF_ERROR(WriteSafetensors(JoinPath(aside, kShardName), tensors));
  TANDEM_ASSIGN_OR_RETURN(CheckpointFile file, DescribeCheckpointFile(aside, kShardName));
  const CheckpointManifest manifest = MakeManifest(target, cursor, std::move(file));
  TANDEM_RETURN_IF_ERROR(WriteCheckpointManifest(aside, manifest));
  TANDEM_RETURN_IF_ERROR(SyncPath(aside));
  TANDEM_RETURN_IF_ERROR(RenameDurably(aside, folder));
  return Describe(folder, manifest);
}

struct Committed {
  int64_t global_step = 0, epoch = 0;
  std::string folder;
};

int64_t NumberOrMinusOne(const std::string& digits) {
  const bool all_digits = !digits.empty() && digits.size() <= 18 &&
                          digits.find_first_not_of("0123456789") == std::string::npos;
  return all_digits ? std::stoll(digits) : -1;
}

// A checkpoint is never half removed under its own name.
Status Trash(const std::string& folder) {
  const std::filesystem::path path(folder);
  const std::string trash = JoinPath(path.parent_path(), ".trash-" + path.filename().string());
  TANDEM_RETURN_IF_ERROR(RemoveTree(trash));
  TANDEM_RETURN_IF_ERROR(RenameDurably(folder, trash));
  return RemoveTree(trash);
}

// What an attempt that died left in its folder.
bool IsLeftOver(const std::string& name) {
  return name.starts_with(".trash-") ||
         (name.starts_with(kStepPrefix) && name.find(".tmp-") != std::string::npos);
}

}  // namespace

Result<SavedCheckpoint> WriteCheckpointFolder(const CheckpointTarget& target,
                                              const CheckpointCursor& cursor,
                                              const std::vector<TensorView>& tensors) {
  const std::string epoch_folder =
      AbsolutePath(CheckpointEpochFolder(target.job_folder, target.epoch));
  const std::string folder = JoinPath(epoch_folder, CheckpointStepName(cursor.global_step));
  if (PathExists(folder)) {
    TANDEM_ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadCheckpointManifest(folder));
    return Describe(folder, manifest);
  }
  const std::string aside = folder + ".tmp-" + std::to_string(getpid());
  TANDEM_RETURN_IF_ERROR(RemoveTree(aside));
  Result<SavedCheckpoint> saved = WriteInto(aside, folder, target, cursor, tensors);
  if (saved.ok()) return saved;
  // The folder itself is reported; what is left aside is swept with the next commit if this fails
  // too.
  const Status swept = RemoveTree(aside);
  const Status said = SayWhatToDo(saved.status());
  return swept.ok() ? said : Status(said.code(), said.message() + "; " + swept.message());
}

Status KeepNewestCheckpoints(const std::string& job_folder, int64_t epoch, int64_t keep,
                             const std::string& protect) {
  TANDEM_CHECK(keep >= 1);
  const std::string root = AbsolutePath(JoinPath(job_folder, "checkpoints"));
  if (!PathExists(root)) return Status::Ok();
  std::vector<Committed> committed;
  TANDEM_ASSIGN_OR_RETURN(const auto epochs, ListFolder(root));
  for (const std::string& epoch_name : epochs) {
    const int64_t number =
        epoch_name.starts_with("e") ? NumberOrMinusOne(epoch_name.substr(1)) : -1;
    if (number < 0 || number > epoch) continue;
    const std::string folder = JoinPath(root, epoch_name);
    TANDEM_ASSIGN_OR_RETURN(const auto names, ListFolder(folder));
    for (const std::string& name : names) {
      const std::string path = JoinPath(folder, name);
      if (IsLeftOver(name)) {
        TANDEM_RETURN_IF_ERROR(RemoveTree(path));
      } else if (name.starts_with(kStepPrefix)) {
        const int64_t step = NumberOrMinusOne(name.substr(std::string(kStepPrefix).size()));
        if (step >= 0) committed.push_back({step, number, path});
      }
    }
  }
  std::sort(committed.begin(), committed.end(), [](const Committed& a, const Committed& b) {
    return std::tie(a.global_step, a.epoch) > std::tie(b.global_step, b.epoch);
  });
  const std::string kept_for_resume = protect.empty() ? "" : AbsolutePath(protect);
  for (size_t i = static_cast<size_t>(keep); i < committed.size(); ++i) {
    if (committed[i].folder == kept_for_resume) continue;
    TANDEM_RETURN_IF_ERROR(Trash(committed[i].folder));
  }
  return Status::Ok();
}

}  // namespace tandem
