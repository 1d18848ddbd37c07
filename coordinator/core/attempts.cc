#include "coordinator/core/attempts.h"

#include <algorithm>

#include "base/status.h"
#include "coordinator/core/requeue.h"

namespace tandem::core {
namespace {

std::string Ended(const Job& job, Cause cause, const std::string& detail) {
  std::string text = "attempt " + std::to_string(job.epoch) + " ended: " + Name(cause);
  return detail.empty() ? text : text + ": " + detail;
}

std::string Seconds(int64_t ms) {
  std::string text = std::to_string(ms / 1000);
  if (ms % 1000 != 0) text += "." + std::to_string(ms % 1000 / 100);
  return text + " s";
}

void Retry(Turn& turn, Job& job, const Decision& decision, Cause cause, const std::string& text) {
  const std::string wait = decision.wait_ms == 0 ? "" : "; next in " + Seconds(decision.wait_ms);
  turn.Move(job, JobState::kPending, "attempt_ended", text + wait, Name(cause));
  if (decision.wait_ms > 0) turn.BackOff(job, turn.now().monotonic_ms + decision.wait_ms);
}

void ReleaseSlots(Turn& turn, const Job& job, Death death) {
  Worker* worker = turn.FindWorker(job.attempt.worker);
  TANDEM_CHECK_MSG(worker != nullptr, job.uid + " ran on unknown worker " + job.attempt.worker);
  const auto occupant = worker->occupants.find({job.uid, job.epoch});
  TANDEM_CHECK_MSG(occupant != worker->occupants.end(), job.uid + " held no slots");
  if (death == Death::kConfirmed) {
    worker->occupants.erase(occupant);
  } else {
    occupant->second.owned = false;
  }
  turn.Touch(*worker);
  turn.WantSchedule();
}

}  // namespace

void BeginAttempt(Turn& turn, Job& job, Worker& worker) {
  TANDEM_CHECK_MSG(!IsLive(job.attempt.state), job.uid + " has a live attempt");
  ++job.epoch;
  job.attempt = {AttemptState::kLaunching, worker.name, worker.incarnation, Cause::kOk};
  job.active_stage = -1;
  job.epoch_stage = -1;
  job.epoch_step = -1;
  job.progress = {};
  worker.occupants[{job.uid, job.epoch}] = OccupantOf(job);
  turn.Touch(worker);
  turn.Move(job, JobState::kAdmitted, "admitted",
            "attempt " + std::to_string(job.epoch) + " on worker " + worker.name);
  SendLaunch(turn, job, worker);
}

void SendLaunch(Turn& turn, const Job& job, const Worker& worker) {
  turn.Send(worker, LaunchAttempt{.attempt = {job.uid, job.epoch},
                                  .job_name = job.name,
                                  .project = job.project,
                                  .slots = job.slots,
                                  .spec = job.spec});
}

void StopLiveAttempt(Turn& turn, Job& job, const Worker& worker, StopKind kind,
                     const std::string& reason) {
  if (job.attempt.state != AttemptState::kDraining) {
    job.attempt.state = AttemptState::kDraining;
    turn.Record(job, "stopping", reason);
  }
  turn.Send(worker, StopAttempt{{job.uid, job.epoch}, kind, reason});
}

void EndLiveAttempt(Turn& turn, Job& job, Cause cause, const std::string& detail, Death death) {
  ReleaseSlots(turn, job, death);
  const Worker& worker = turn.state().workers.at(job.attempt.worker);
  const Decision decision = AfterEnd(job, cause, worker.drain != Drain::kNone, turn.limits());
  job.attempt.state = AttemptState::kEnded;
  job.attempt.cause = cause;
  job.charged_ends += decision.charged ? 1 : 0;
  job.ends_in_a_row += decision.counted ? 1 : 0;
  const std::string text = Ended(job, cause, detail);
  if (job.state != JobState::kCancelling && decision.next == Next::kRetry) {
    Retry(turn, job, decision, cause, text);
    return;
  }
  turn.Record(job, "attempt_ended", text, Name(cause));
  if (job.state == JobState::kCancelling) {
    turn.Move(job, JobState::kCancelled, "cancelled", "cancelled on request");
  } else if (decision.next == Next::kSucceed) {
    turn.Move(job, JobState::kSucceeded, "succeeded", "");
  } else {
    const std::string why = decision.charged
                                ? std::to_string(job.charged_ends) +
                                      " attempts ended without progress; the last: " + text
                                : text;
    turn.Move(job, JobState::kFailed, "failed", why, decision.reason);
  }
}

void AnswerStale(Turn& turn, const Worker& worker, const AttemptRef& attempt) {
  ++turn.state().counters.stale_messages;
  const Epoch allowed = FirstAllowedEpoch(turn.state(), attempt.job);
  if (attempt.epoch < allowed) {
    turn.Send(worker, FenceAttempts{attempt.job, allowed});
  } else {
    turn.Send(worker, StopAttempt{attempt, StopKind::kKill, "this attempt is not known here"});
  }
}

void FenceStale(Turn& turn, Worker& worker, const AttemptRef& attempt) {
  const Job* job = turn.FindJob(attempt.job);
  Occupant& occupant = worker.occupants[attempt];
  // Of an unknown job we do not know the size: it may hold all there is.
  occupant.slots = job != nullptr ? job->slots : worker.slots;
  occupant.gpus = job != nullptr ? job->gpus : worker.gpus;
  occupant.owned = false;
  occupant.settled = true;
  AnswerStale(turn, worker, attempt);
}

std::vector<AttemptRef> OwnedAttempts(const Worker& worker) {
  std::vector<AttemptRef> attempts;
  for (const auto& [attempt, occupant] : worker.occupants) {
    if (occupant.owned) attempts.push_back(attempt);
  }
  return attempts;
}

void LoseWorker(Turn& turn, Worker& worker, const std::string& detail) {
  for (const AttemptRef& attempt : OwnedAttempts(worker)) {
    EndLiveAttempt(turn, *turn.FindJob(attempt.job), Cause::kNodeLost, detail, Death::kUnknown);
  }
  turn.Send(worker, RefuseConnection{
                        Status(Code::kAborted, "the worker's lease has expired; register again")});
  worker.occupants.clear();
  worker.connection = 0;
  worker.liveness = Liveness::kLost;
  turn.Touch(worker);
  turn.WantSchedule();
}

}  // namespace tandem::core
