// Progress: how far an attempt is, in the job's own counting: stage 0 is prepare, then the plan's
// training stages, then evaluate, then export. Also remembers when it last moved, for the watchdog.
// Confined to the loop's thread.
#pragma once

#include <cstdint>

#include "tandem/v1/job.pb.h"
#include "worker/plan/messages.h"

namespace tandem::agent {

// prepare before them, evaluate and export after them
inline constexpr int64_t kStagesBesidesTraining = 3;

class Progress {
 public:
  Progress(int64_t training_stages, int64_t now_ms);

  // While prepare runs.
  void Prepared(int64_t documents, int64_t now_ms);
  // `progress` of rank 0, and stage_started events. True: another stage or step.
  bool Take(const RankMessage& message, int64_t now_ms);
  void Checkpointed(int64_t step, int64_t now_ms);
  // Something else has happened that shows life.
  void Touch(int64_t now_ms) { moved_ms_ = now_ms; }

  const v1::JobProgress& value() const { return value_; }
  int64_t moved_ms() const { return moved_ms_; }
  int64_t checkpoint_ms() const { return checkpoint_ms_; }  // of the newest one; 0: none yet
  bool is_training() const;

 private:
  v1::JobProgress value_;
  int64_t moved_ms_;
  int64_t checkpoint_ms_ = 0;
};

}  // namespace tandem::agent
