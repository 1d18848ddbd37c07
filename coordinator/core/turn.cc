#include "coordinator/core/turn.h"

#include "base/status.h"

namespace tandem::core {
namespace {

// The job's graph (ARCHITECTURE.md). Terminal states have no way out.
bool MayMove(JobState from, JobState to) {
  switch (from) {
    case JobState::kPending:
      return to == JobState::kAdmitted || to == JobState::kCancelled;
    case JobState::kAdmitted:
      return to != JobState::kAdmitted && to != JobState::kCancelled;
    case JobState::kRunning:
      return to != JobState::kRunning && to != JobState::kAdmitted && to != JobState::kCancelled;
    case JobState::kCancelling:
      return to == JobState::kCancelled;
    case JobState::kCancelled:
    case JobState::kSucceeded:
    case JobState::kFailed:
      return false;
  }
  return false;
}

}  // namespace

Job* Turn::FindJob(const JobUid& uid) {
  const auto found = state_.jobs.find(uid);
  return found == state_.jobs.end() ? nullptr : &found->second;
}

Worker* Turn::FindWorker(const WorkerName& name) {
  const auto found = state_.workers.find(name);
  return found == state_.workers.end() ? nullptr : &found->second;
}

Worker* Turn::Sender(const WorkerName& name, ConnectionId connection) {
  Worker* worker = FindWorker(name);
  if (worker == nullptr || connection == 0 || worker->connection != connection) return nullptr;
  worker->last_seen_ms = now_.monotonic_ms;
  worker->last_seen_wall_ms = now_.wall_ms;
  if (worker->liveness == Liveness::kSuspect) {
    worker->liveness = Liveness::kAlive;
    WantSchedule();
  }
  Touch(*worker);
  return worker;
}

Job* Turn::FindLive(const AttemptRef& attempt, const Worker& worker) {
  return LiveJob(state_, attempt, worker.name) == nullptr ? nullptr : FindJob(attempt.job);
}

void Turn::AddEvent(Job& job, JobState before, const char* kind, std::string message,
                    std::string reason) {
  job.revision = ++state_.revision;
  job.message = message;
  effects_.persist.events.push_back({job.revision, job.uid, job.epoch, now_.wall_ms, kind,
                                     std::move(message), before, job.state, std::move(reason)});
  changed_jobs_.insert(job.uid);
  Touch(job);
}

void Turn::Record(Job& job, const char* kind, std::string message, std::string reason) {
  AddEvent(job, job.state, kind, std::move(message), std::move(reason));
}

void Turn::Move(Job& job, JobState to, const char* kind, std::string message, std::string reason) {
  const JobState before = job.state;
  TANDEM_CHECK_MSG(MayMove(before, to),
                   job.uid + " may not go from " + Name(before) + " to " + Name(to));
  if (before == JobState::kPending) Dequeue(job);
  if (before == JobState::kCancelling) state_.cancelling.erase(job.uid);
  job.state = to;
  if (to == JobState::kPending) Enqueue(job);
  if (to == JobState::kCancelling) state_.cancelling.insert(job.uid);
  if (before == JobState::kPending) WantSchedule();
  if (to != JobState::kCancelling) job.cancel_deadline_ms = 0;
  if (IsTerminal(to)) job.end_wall_ms = now_.wall_ms;
  job.reason = to == JobState::kFailed || to == JobState::kPending ? reason : "";
  AddEvent(job, before, kind, std::move(message), std::move(reason));
}

void Turn::Enqueue(Job& job) {
  state_.queue.insert(QueueKeyOf(job));
  state_.waiting[job.pending_reason].insert(QueueKeyOf(job));
  WantSchedule();
}

void Turn::Dequeue(Job& job) {
  state_.queue.erase(QueueKeyOf(job));
  state_.waiting[job.pending_reason].erase(QueueKeyOf(job));
  state_.backoffs.erase({job.backoff_until_ms, job.uid});
  job.pending_reason = PendingReason::kNone;
  job.pending_detail.clear();
  job.backoff_until_ms = 0;
}

void Turn::Explain(Job& job, PendingReason reason, std::string detail) {
  if (job.pending_reason == reason && job.pending_detail == detail) return;
  state_.waiting[job.pending_reason].erase(QueueKeyOf(job));
  job.pending_reason = reason;
  job.pending_detail = std::move(detail);
  state_.waiting[reason].insert(QueueKeyOf(job));
  Touch(job);
}

void Turn::BackOff(Job& job, int64_t until_ms) {
  state_.backoffs.erase({job.backoff_until_ms, job.uid});
  job.backoff_until_ms = until_ms;
  state_.backoffs.insert({until_ms, job.uid});
}

void Turn::Save(const Worker& worker) {
  changed_workers_.insert(worker.name);
  Touch(worker);
}

void Turn::Answer(RequestToken token, Status status) {
  effects_.replies.push_back({token, std::move(status), "", "", false});
}

void Turn::AnswerJob(RequestToken token, const JobUid& job, bool replayed) {
  effects_.replies.push_back({token, Status::Ok(), job, "", replayed});
}

void Turn::AnswerWorker(RequestToken token, const WorkerName& worker) {
  effects_.replies.push_back({token, Status::Ok(), "", worker, false});
}

Effects Turn::Finish() {
  for (const JobUid& uid : changed_jobs_) effects_.persist.jobs.push_back(state_.jobs.at(uid));
  for (const WorkerName& name : changed_workers_) {
    const Worker* worker = FindWorker(name);
    if (worker != nullptr) effects_.persist.workers.push_back(*worker);
  }
  return std::move(effects_);
}

}  // namespace tandem::core
