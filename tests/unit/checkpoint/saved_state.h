// A small state to save in checkpoint tests: its values follow from the step.
#pragma once

#include <string>
#include <vector>

#include "worker/checkpoint/checkpoint_folder.h"

namespace tandem {

struct SavedState {
  std::vector<float> weights;
  int64_t step;
  std::vector<TensorView> views;

  explicit SavedState(int64_t at_step) : weights(300), step(at_step) {
    for (size_t i = 0; i < weights.size(); ++i) {
      weights[i] = static_cast<float>(at_step) + static_cast<float>(i) / 7;
    }
    views = {{"layers.0.feature_map_q",
              "F32",
              {3, 100},
              reinterpret_cast<const std::byte*>(weights.data()),
              static_cast<int64_t>(4 * weights.size())},
             {"step", "I64", {}, reinterpret_cast<const std::byte*>(&step), 8}};
  }
  SavedState(const SavedState&) = delete;
};

inline CheckpointTarget TargetIn(const std::string& job_folder, int64_t epoch) {
  CheckpointTarget target;
  target.job_folder = job_folder;
  target.job_uid = "uid-1";
  target.spec_sha256 = "spec";
  target.epoch = epoch;
  return target;
}

inline CheckpointCursor CursorAt(int64_t global_step) {
  return {0, "attention_transfer", global_step, global_step};
}

inline Result<SavedCheckpoint> SaveStep(const std::string& job_folder, int64_t epoch,
                                        int64_t step) {
  const SavedState state(step);
  return WriteCheckpointFolder(TargetIn(job_folder, epoch), CursorAt(step), state.views);
}

}  // namespace tandem
