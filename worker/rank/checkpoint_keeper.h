// CheckpointKeeper: when a checkpoint is due, and what happens around saving one.
//
// All ranks ask it the same questions at the same steps; rank 0 writes, the others only note the
// time. A full disk does not end the attempt: the failure is reported, the older checkpoint stays
// in force, and the next one is tried again. Training thread only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/clock.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/plan/plan.h"
#include "worker/rank/event_channel.h"

namespace tandem {

class CheckpointKeeper {
 public:
  CheckpointKeeper(const Plan& plan, const std::string& base_sha256, bool is_writer,
                   EventChannel& channel, Clock& clock);

  // By the number of steps since the last one: the same on every rank.
  bool DueBySteps(int64_t global_step) const;
  // By this rank's clock: must be agreed upon before it is acted on.
  bool DueByTime() const;
  // Saves (rank 0). Nothing when this step is saved already. Empty: the disk is full.
  std::optional<SavedCheckpoint> Save(const CheckpointCursor& cursor, const NamedTensors& state);

 private:
  void ReportSaved(const CheckpointCursor& cursor, int64_t blocking_ns);

  const Plan& plan_;
  const bool is_writer_;
  EventChannel& channel_;
  Clock& clock_;
  CheckpointTarget target_;
  SavedCheckpoint last_;
  int64_t last_step_ = 0;
  int64_t last_ms_;
};

}  // namespace tandem
