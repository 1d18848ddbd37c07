#include "worker/rank/checkpoint_keeper.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "worker/rank/failure.h"

namespace tandem {

CheckpointKeeper::CheckpointKeeper(const Plan& plan, const std::string& base_sha256, bool is_writer,
                                   EventChannel& channel, Clock& clock)
    : plan_(plan),
      is_writer_(is_writer),
      channel_(channel),
      clock_(clock),
      last_ms_(clock.MonotonicMs()) {
  target_.job_folder = plan.job_folder;
  target_.job_uid = plan.job_uid;
  target_.spec_sha256 = plan.spec_sha256;
  target_.base_sha256 = base_sha256;
  target_.epoch = plan.epoch;
  target_.data_parallel = plan.ranks;
  target_.parent = plan.resume_from;
}

bool CheckpointKeeper::DueBySteps(int64_t global_step) const {
  return plan_.checkpoint_every_steps > 0 && global_step % plan_.checkpoint_every_steps == 0;
}

bool CheckpointKeeper::DueByTime() const {
  return plan_.checkpoint_every_seconds > 0 &&
         static_cast<double>(clock_.MonotonicMs() - last_ms_) >=
             1000.0 * plan_.checkpoint_every_seconds;
}

std::optional<SavedCheckpoint> CheckpointKeeper::Save(const CheckpointCursor& cursor,
                                                      const NamedTensors& state) {
  last_ms_ = clock_.MonotonicMs();
  if (!is_writer_) return SavedCheckpoint{};
  if (cursor.global_step == last_step_) return last_;
  const int64_t start_ns = clock_.MonotonicNs();
  Result<SavedCheckpoint> saved = SaveCheckpoint(target_, cursor, state);
  if (!saved.ok()) {
    if (saved.status().code() != Code::kResourceExhausted) RequireStorage(saved.status());
    Log(LogLevel::kError, "checkpoint_failed", {{"why", saved.status().message()}});
    RankMessage message;
    message.type = "event";
    message.kind = "checkpoint_failed";
    message.text = saved.status().message();
    channel_.Send(std::move(message));
    return std::nullopt;
  }
  last_ = std::move(saved).value();
  last_step_ = cursor.global_step;
  target_.parent = last_.folder;
  ReportSaved(cursor, clock_.MonotonicNs() - start_ns);
  const Status kept = KeepNewestCheckpoints(plan_.job_folder, plan_.epoch, plan_.checkpoint_keep,
                                            plan_.resume_from);
  if (!kept.ok()) {
    Log(LogLevel::kWarning, "old_checkpoints_not_removed", {{"why", kept.message()}});
  }
  return last_;
}

void CheckpointKeeper::ReportSaved(const CheckpointCursor& cursor, int64_t blocking_ns) {
  Log(LogLevel::kInfo, "checkpoint_committed",
      {{"stage", cursor.stage}, {"step", cursor.stage_step}, {"folder", last_.folder}});
  RankMessage message;
  message.type = "checkpoint";
  message.stage = cursor.stage;
  message.stage_index = cursor.stage_index;
  message.step = cursor.stage_step;
  message.data = nlohmann::json{{"directory", last_.folder},
                                {"manifest_sha256", last_.manifest_sha256},
                                {"bytes", last_.bytes},
                                {"global_step", cursor.global_step},
                                {"blocking_seconds", static_cast<double>(blocking_ns) * 1e-9}}
                     .dump();
  channel_.Send(std::move(message));
}

}  // namespace tandem
