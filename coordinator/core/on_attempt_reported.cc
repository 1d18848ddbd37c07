// AttemptReported, HeartbeatReceived: what lives on a worker, and how far it is.
#include <set>
#include <string>

#include "coordinator/core/attempts.h"
#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

void Start(Turn& turn, Job& job) {
  if (job.attempt.state == AttemptState::kLaunching) job.attempt.state = AttemptState::kRunning;
  if (job.state != JobState::kAdmitted) return;
  if (job.start_wall_ms == 0) job.start_wall_ms = turn.now().wall_ms;
  turn.Move(job, JobState::kRunning, "started",
            "attempt " + std::to_string(job.epoch) + " is running on worker " + job.attempt.worker);
}

// Progress itself is live state; a new stage is history. A rank's progress thread may still tell of
// the stage before.
void Advance(Turn& turn, Job& job, const Progress& progress) {
  if (progress.stage_index < job.active_stage) return;
  job.progress = progress;
  turn.Touch(job);
  if (progress.stage_index <= job.active_stage || progress.stage.empty()) return;
  job.active_stage = progress.stage_index;
  turn.Record(job, "stage_started",
              "stage " + progress.stage + " (" + std::to_string(progress.stage_index + 1) + " of " +
                  std::to_string(progress.stage_count) + ")");
}

void Take(Turn& turn, Worker& worker, const AttemptReport& report) {
  Job* job = turn.FindLive(report.attempt, worker);
  if (job == nullptr) {
    FenceStale(turn, worker, report.attempt);
    return;
  }
  Occupant& occupant = worker.occupants.at(report.attempt);
  occupant.settled = true;
  occupant.absent_since_ms = 0;
  if (report.running) Start(turn, *job);
  if (report.has_progress) Advance(turn, *job, report.progress);
}

// The agent has not named it for a lease, nor told its end: it never will. If a launch may still be
// under way, the slots stay taken until the agent answers the fence that follows it.
void GiveUp(Turn& turn, Worker& worker, const AttemptRef& attempt, bool settled) {
  EndLiveAttempt(turn, *turn.FindJob(attempt.job), Cause::kNodeLost,
                 "the agent of " + worker.name + " does not know it",
                 settled ? Death::kConfirmed : Death::kUnknown);
  turn.Send(worker, FenceAttempts{attempt.job, attempt.epoch + 1});
}

void NoteAbsence(Turn& turn, Worker& worker, const AttemptRef& attempt) {
  Occupant& occupant = worker.occupants.at(attempt);
  const int64_t now_ms = turn.now().monotonic_ms;
  if (!occupant.owned) {
    if (!occupant.settled) return;
    worker.occupants.erase(attempt);
    turn.WantSchedule();
  } else if (occupant.absent_since_ms == 0) {
    occupant.absent_since_ms = now_ms;
  } else if (now_ms - occupant.absent_since_ms >= turn.limits().lease_ms) {
    GiveUp(turn, worker, attempt, occupant.settled);
  }
}

}  // namespace

void On(Turn& turn, const AttemptReported& event) {
  Worker* worker = turn.Sender(event.worker, event.connection);
  if (worker != nullptr) Take(turn, *worker, event.report);
}

void On(Turn& turn, const HeartbeatReceived& event) {
  Worker* worker = turn.Sender(event.worker, event.connection);
  if (worker == nullptr) return;
  std::set<AttemptRef> absent;
  for (const auto& [attempt, occupant] : worker->occupants) absent.insert(attempt);
  for (const AttemptReport& report : event.attempts) {
    absent.erase(report.attempt);
    Take(turn, *worker, report);
  }
  for (const AttemptRef& attempt : absent) NoteAbsence(turn, *worker, attempt);
  if (event.sequence > 0) turn.Send(*worker, AckHeartbeat{event.sequence});
}

}  // namespace tandem::core
