#include "coordinator/core/state.h"

namespace tandem::core {

QueueKey QueueKeyOf(const Job& job) {
  return {-job.priority, job.submit_revision, job.uid};
}

Occupant OccupantOf(const Job& job) {
  return {.slots = job.slots, .gpus = job.gpus};
}

int64_t SlotsInUse(const Worker& worker) {
  int64_t slots = 0;
  for (const auto& [attempt, occupant] : worker.occupants) slots += occupant.slots;
  return slots;
}

int64_t GpusInUse(const Worker& worker) {
  int64_t gpus = 0;
  for (const auto& [attempt, occupant] : worker.occupants) gpus += occupant.gpus;
  return gpus;
}

WorkerState StateOf(const Worker& worker) {
  const bool drains = worker.drain != Drain::kNone;
  // Nothing runs there and nothing will: that it falls silent, or has left, is no trouble.
  if (drains && worker.occupants.empty()) return WorkerState::kDrained;
  if (worker.liveness == Liveness::kLost) return WorkerState::kLost;
  if (worker.liveness == Liveness::kSuspect) return WorkerState::kSuspect;
  return drains ? WorkerState::kDraining : WorkerState::kReady;
}

bool TakesJobs(const Worker& worker) {
  return worker.connection != 0 && StateOf(worker) == WorkerState::kReady;
}

const Job* LiveJob(const State& state, const AttemptRef& attempt, const WorkerName& worker) {
  const auto found = state.jobs.find(attempt.job);
  if (found == state.jobs.end()) return nullptr;
  const Job& job = found->second;
  const bool is_live =
      IsLive(job.attempt.state) && job.epoch == attempt.epoch && job.attempt.worker == worker;
  return is_live ? &job : nullptr;
}

Epoch FirstAllowedEpoch(const State& state, const JobUid& uid) {
  const auto found = state.jobs.find(uid);
  if (found == state.jobs.end()) return 0;
  const Job& job = found->second;
  return IsLive(job.attempt.state) ? job.epoch : job.epoch + 1;
}

std::string MessageOf(const Job& job) {
  if (job.state != JobState::kPending || job.pending_detail.empty()) return job.message;
  if (job.message.empty()) return job.pending_detail;
  return job.pending_detail + "; " + job.message;
}

std::string ReasonOf(const Job& job) {
  if (job.pending_reason != PendingReason::kNone) return Name(job.pending_reason);
  return job.reason;
}

}  // namespace tandem::core
