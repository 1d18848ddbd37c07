// Draining: a worker gets no new attempts, and its running ones checkpoint, stop and move. Asked by
// an operator (until undrained) or announced by the agent itself (until its next start).
#include <string>

#include "coordinator/core/attempts.h"
#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

void StartDrain(Turn& turn, Worker& worker, Drain drain) {
  worker.drain = drain;
  turn.Save(worker);
  turn.WantSchedule();
  for (const AttemptRef& attempt : OwnedAttempts(worker)) {
    Job& job = *turn.FindJob(attempt.job);
    if (job.state == JobState::kCancelling) continue;  // is being killed
    StopLiveAttempt(turn, job, worker, StopKind::kCheckpointAndStop,
                    "worker " + worker.name + " is draining");
  }
}

Status NoSuchWorker(const WorkerName& name) {
  return NotFound("worker " + name + " is not known; list them with `tandem workers`");
}

}  // namespace

void On(Turn& turn, const WorkerDrainRequested& event) {
  Worker* worker = turn.FindWorker(event.worker);
  if (worker == nullptr) {
    turn.Answer(event.token, NoSuchWorker(event.worker));
    return;
  }
  if (worker->drain != Drain::kByOperator) StartDrain(turn, *worker, Drain::kByOperator);
  turn.AnswerWorker(event.token, worker->name);
}

void On(Turn& turn, const WorkerUndrainRequested& event) {
  Worker* worker = turn.FindWorker(event.worker);
  if (worker == nullptr) {
    turn.Answer(event.token, NoSuchWorker(event.worker));
    return;
  }
  if (worker->drain == Drain::kByAgent) {
    turn.Answer(event.token, FailedPrecondition("worker " + event.worker +
                                                " is shutting down; start its agent again"));
    return;
  }
  if (worker->drain == Drain::kByOperator) {
    worker->drain = Drain::kNone;
    turn.Save(*worker);
    turn.WantSchedule();
  }
  turn.AnswerWorker(event.token, worker->name);
}

void On(Turn& turn, const WorkerDrainAnnounced& event) {
  Worker* worker = turn.Sender(event.worker, event.connection);
  if (worker == nullptr) return;
  if (worker->drain == Drain::kNone) StartDrain(turn, *worker, Drain::kByAgent);
}

}  // namespace tandem::core
