// JobCancelRequested: a waiting job ends at once, a launched one when its agent says so or the
// deadline has passed.
#include <string>

#include "coordinator/core/attempts.h"
#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

void CancelLaunched(Turn& turn, Job& job) {
  job.attempt.state = AttemptState::kDraining;
  turn.Move(job, JobState::kCancelling, "cancelling", "cancel requested");
  job.cancel_deadline_ms = turn.now().monotonic_ms + turn.limits().cancel_deadline_ms;
  StopLiveAttempt(turn, job, turn.state().workers.at(job.attempt.worker), StopKind::kKill,
                  "cancel requested");
}

}  // namespace

void On(Turn& turn, const JobCancelRequested& event) {
  Job* job = turn.FindJob(event.uid);
  if (job == nullptr) {
    turn.Answer(event.token, NotFound("job " + event.uid + " does not exist"));
    return;
  }
  if (job->state == JobState::kCancelling || job->state == JobState::kCancelled) {
    turn.AnswerJob(event.token, job->uid);
    return;
  }
  if (IsTerminal(job->state)) {
    turn.Answer(event.token,
                FailedPrecondition("job " + job->name + " is " + Name(job->state) +
                                   "; only a job that has not ended can be cancelled"));
    return;
  }
  if (event.etag != 0 && event.etag != job->revision) {
    turn.Answer(event.token,
                Status(Code::kAborted, "job " + job->name + " has changed: its etag is " +
                                           std::to_string(job->revision) + ", not " +
                                           std::to_string(event.etag) + "; read it again"));
    return;
  }
  if (job->state == JobState::kPending) {
    turn.Move(*job, JobState::kCancelled, "cancelled", "cancelled on request");
  } else {
    CancelLaunched(turn, *job);
  }
  turn.AnswerJob(event.token, job->uid);
}

}  // namespace tandem::core
