#include "coordinator/core/invariants.h"

#include <algorithm>
#include <set>

namespace tandem::core {
namespace {

using Broken = std::vector<std::string>;

bool MustBeLive(JobState state) {
  return state == JobState::kAdmitted || state == JobState::kRunning ||
         state == JobState::kCancelling;
}

// I1, and the job's side of I2 and I3.
void CheckAttempt(const State& state, const Job& job, Broken* broken) {
  const bool is_live = IsLive(job.attempt.state);
  if (is_live != MustBeLive(job.state)) {
    broken->push_back("I1: " + job.uid + " is " + Name(job.state) + " with an attempt that is " +
                      Name(job.attempt.state));
  }
  if (!is_live) return;
  const auto worker = state.workers.find(job.attempt.worker);
  if (worker == state.workers.end()) {
    broken->push_back("I2: " + job.uid + " runs on unknown worker " + job.attempt.worker);
    return;
  }
  const auto occupant = worker->second.occupants.find({job.uid, job.epoch});
  if (occupant == worker->second.occupants.end() || !occupant->second.owned) {
    broken->push_back("I2: " + job.uid + " holds no slots of " + job.attempt.worker);
  } else if (occupant->second.slots != job.slots || occupant->second.gpus != job.gpus) {
    broken->push_back("I3: " + job.uid + " holds a part of its gang");
  }
}

void CheckRoom(const Worker& worker, const char* what, int64_t owned, int64_t all, Broken* broken) {
  if (owned <= all) return;
  broken->push_back("I2: " + worker.name + " has " + std::to_string(all) + " " + what + " and " +
                    std::to_string(owned) + " are in use");
}

// The worker's side of I2.
void CheckWorker(const State& state, const Worker& worker, Broken* broken) {
  int64_t slots = 0;
  int64_t gpus = 0;
  for (const auto& [attempt, occupant] : worker.occupants) {
    if (!occupant.owned) continue;
    slots += occupant.slots;
    gpus += occupant.gpus;
    if (LiveJob(state, attempt, worker.name) == nullptr) {
      broken->push_back("I2: slots of " + worker.name + " are held by " + attempt.job + " epoch " +
                        std::to_string(attempt.epoch) + ", which does not live there");
    }
  }
  CheckRoom(worker, "slots", slots, worker.slots, broken);
  CheckRoom(worker, "GPUs", gpus, worker.gpus, broken);
  if (worker.liveness == Liveness::kLost && (!worker.occupants.empty() || worker.connection != 0)) {
    broken->push_back("I2: " + worker.name + " is lost, yet connected or occupied");
  }
}

void CheckWaiting(const State& state, Broken* broken) {
  size_t waiting = 0;
  size_t in_backoff = 0;
  for (const auto& [reason, keys] : state.waiting) {
    waiting += keys.size();
    for (const QueueKey& key : keys) {
      const auto job = state.jobs.find(key.uid);
      if (job == state.jobs.end() || job->second.pending_reason != reason ||
          job->second.state != JobState::kPending) {
        broken->push_back("index: " + key.uid + " waits for another reason");
      } else if (job->second.backoff_until_ms != 0) {
        ++in_backoff;
      }
    }
  }
  if (waiting != state.queue.size()) broken->push_back("index: not every queued job waits");
  if (in_backoff != state.backoffs.size()) broken->push_back("index: backoffs are not the jobs'");
}

void CheckIndexes(const State& state, Broken* broken) {
  std::set<QueueKey> queue;
  std::set<JobUid> cancelling;
  for (const auto& [uid, job] : state.jobs) {
    if (job.state == JobState::kPending) queue.insert(QueueKeyOf(job));
    if (job.state == JobState::kCancelling) cancelling.insert(uid);
    const auto named = state.job_by_name.find({job.project, job.name});
    if (named == state.job_by_name.end() || named->second != uid) {
      broken->push_back("index: " + uid + " is not found by its name " + job.name);
    }
  }
  const auto same = [](const QueueKey& a, const QueueKey& b) { return !(a < b) && !(b < a); };
  if (!std::equal(queue.begin(), queue.end(), state.queue.begin(), state.queue.end(), same)) {
    broken->push_back("index: the queue is not the PENDING jobs");
  }
  CheckWaiting(state, broken);
  if (cancelling != state.cancelling)
    broken->push_back("index: cancelling is not the CANCELLING jobs");
  if (state.job_by_name.size() != state.jobs.size())
    broken->push_back("index: more names than jobs");
  if (state.requests.size() != state.requests_by_age.size()) {
    broken->push_back("index: requests by age are not the requests");
  }
}

}  // namespace

std::vector<std::string> CheckInvariants(const State& state, const Now& now) {
  Broken broken;
  for (const auto& [uid, job] : state.jobs) {
    CheckAttempt(state, job, &broken);
    if (job.revision > state.revision)
      broken.push_back("I10: " + uid + " is newer than the newest event");
    if (job.state != JobState::kCancelling) continue;
    if (job.cancel_deadline_ms == 0 ||
        job.cancel_deadline_ms - now.monotonic_ms > state.limits.cancel_deadline_ms) {
      broken.push_back("I14: the cancel of " + uid + " has no bound");
    }
  }
  for (const auto& [name, worker] : state.workers) CheckWorker(state, worker, &broken);
  for (const auto& [id, request] : state.requests) {
    if (!state.jobs.contains(request.job)) broken.push_back("I9: request " + id + " has no job");
  }
  CheckIndexes(state, &broken);
  return broken;
}

void HistoryChecker::Restart(const State& state) {
  revision_ = state.revision;
  seen_.clear();
  for (const auto& [uid, job] : state.jobs) seen_[uid] = {job.state, job.epoch, job.revision};
}

void HistoryChecker::CheckEvents(const State& after, const Effects& effects, Broken* broken) {
  std::map<JobUid, JobState> states;
  for (const JobEvent& event : effects.persist.events) {
    if (event.revision != ++revision_) {
      broken->push_back("I10: event " + event.kind + " has revision " +
                        std::to_string(event.revision) + ", not " + std::to_string(revision_));
    }
    const auto seen = seen_.find(event.job);
    const auto [state, is_first] = states.try_emplace(
        event.job, seen == seen_.end() ? JobState::kPending : seen->second.state);
    if (event.before != state->second) {
      broken->push_back("I10: a change of " + event.job + " before " + event.kind +
                        " has no event");
    }
    state->second = event.after;
  }
  if (after.revision != revision_) broken->push_back("I10: a revision was used without an event");
  revision_ = after.revision;
}

void HistoryChecker::CheckJobs(const State& after, const Effects& effects, Broken* broken) {
  std::map<JobUid, Revision> rows;
  for (const Job& job : effects.persist.jobs) rows[job.uid] = job.revision;
  for (const auto& [uid, job] : after.jobs) {
    const auto found = seen_.find(uid);
    const Seen before = found == seen_.end() ? Seen{} : found->second;
    const bool has_changed = job.revision != before.revision;
    if (has_changed && (!rows.contains(uid) || rows[uid] != job.revision)) {
      broken->push_back("I10: " + uid + " changed and its row was not written");
    }
    if (!has_changed && (job.state != before.state || job.epoch != before.epoch)) {
      broken->push_back("I10: " + uid + " changed without an event");
    }
    if (IsTerminal(before.state) && (has_changed || job.state != before.state)) {
      broken->push_back("I8: " + uid + " was " + Name(before.state) + " and changed");
    }
    if (job.epoch < before.epoch || job.epoch > before.epoch + 1) {
      broken->push_back("I6: the epoch of " + uid + " went from " + std::to_string(before.epoch) +
                        " to " + std::to_string(job.epoch));
    }
    seen_[uid] = {job.state, job.epoch, job.revision};
  }
}

std::vector<std::string> HistoryChecker::Check(const State& after, const Effects& effects) {
  Broken broken;
  CheckEvents(after, effects, &broken);
  CheckJobs(after, effects, &broken);
  for (const Command& command : effects.commands) {
    const auto* launch = std::get_if<LaunchAttempt>(&command.what);
    if (launch == nullptr) continue;
    if (LiveJob(after, launch->attempt, command.worker) == nullptr) {
      broken.push_back("I6: " + launch->attempt.job + " is launched on " + command.worker +
                       ", which is not where it lives");
    }
  }
  return broken;
}

}  // namespace tandem::core
