// Checkpoint folders without torch: writing one atomically, and keeping the last few.
//
// The part of checkpoint.h that knows files but not tensors, apart so that it can be killed at
// every system call in a test. See checkpoint.h for order, failure and threads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/model/safetensors.h"
#include "worker/plan/checkpoint_manifest.h"

namespace tandem {

// Where and for whom an attempt saves. `parent` moves on with each commit.
struct CheckpointTarget {
  std::string job_folder;
  std::string job_uid;
  std::string spec_sha256;
  std::string base_sha256;
  int64_t epoch = 0;
  int64_t data_parallel = 1;
  std::string parent;  // folder resumed from or written before; may be empty
};

struct CheckpointCursor {
  int64_t stage_index = 0;
  std::string stage;
  int64_t stage_step = 0;
  int64_t global_step = 0;
};

struct SavedCheckpoint {
  std::string folder;
  std::string manifest_sha256;
  int64_t bytes = 0;
};

// Idempotent: a step that this epoch has committed already is returned as it is.
Result<SavedCheckpoint> WriteCheckpointFolder(const CheckpointTarget& target,
                                              const CheckpointCursor& cursor,
                                              const std::vector<TensorView>& tensors);

// Removes committed checkpoints of the job beyond the newest `keep` (>= 1; by global step, then
// epoch) and this epoch's left-over .tmp folders. Never `protect` (the folder resumed from), never
// an epoch above `epoch`. Removal renames to .trash-* first, so that a half-removed checkpoint is
// never seen as one.
Status KeepNewestCheckpoints(const std::string& job_folder, int64_t epoch, int64_t keep,
                             const std::string& protect);

}  // namespace tandem
