// AttemptEnded: the agent has seen the end of a process group. Acknowledged always, so that it
// stops repeating itself.
#include "coordinator/core/attempts.h"
#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

void KeepResults(Job& job, const AttemptEnded& event) {
  if (event.report != nullptr) job.report = event.report;
  if (!event.artifact.empty()) job.artifact = event.artifact;
  if (!event.report_path.empty()) job.report_path = event.report_path;
}

// The end of an attempt that is not (or no longer) the job's.
void NoteStaleEnd(Turn& turn, Worker& worker, const AttemptRef& attempt) {
  const Job* job = turn.FindJob(attempt.job);
  const bool is_repeat = job != nullptr && job->epoch == attempt.epoch;
  if (!is_repeat) ++turn.state().counters.stale_messages;
  if (worker.occupants.erase(attempt) > 0) turn.WantSchedule();
}

}  // namespace

void On(Turn& turn, const AttemptEnded& event) {
  Worker* worker = turn.Sender(event.worker, event.connection);
  if (worker == nullptr) return;
  Job* job = turn.FindLive(event.attempt, *worker);
  if (job == nullptr) {
    NoteStaleEnd(turn, *worker, event.attempt);
  } else {
    KeepResults(*job, event);
    EndLiveAttempt(turn, *job, event.cause, event.detail, Death::kConfirmed);
  }
  turn.Send(*worker, AckAttempt{event.attempt});
}

}  // namespace tandem::core
