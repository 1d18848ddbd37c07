// Ticked: what must happen although nothing arrives: leases, cancel deadlines, backoffs, and the
// limits of memory.
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/attempts.h"
#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

void ForgetWorkers(Turn& turn, const std::vector<WorkerName>& names) {
  for (const WorkerName& name : names) {
    turn.state().workers.erase(name);
    turn.effects().persist.forgotten_workers.push_back(name);
    turn.effects().touched_workers.erase(name);
    turn.effects().removed_workers.insert(name);
  }
}

// If ticks were missing, it was we who did not listen (stopped, starved, paused with the machine):
// what the agents said meanwhile is still on its way, and counts.
void ForgiveOwnAbsence(Turn& turn) {
  State& state = turn.state();
  const int64_t away_ms = turn.now().monotonic_ms - state.last_tick_ms;
  state.last_tick_ms = turn.now().monotonic_ms;
  if (away_ms <= state.limits.lease_ms / 4) return;
  for (auto& [name, worker] : state.workers) {
    if (worker.liveness != Liveness::kLost) worker.last_seen_ms += away_ms;
  }
}

void CheckLeases(Turn& turn) {
  const Limits& limits = turn.limits();
  std::vector<WorkerName> forgotten;
  for (auto& [name, worker] : turn.state().workers) {
    const int64_t silent_ms = turn.now().monotonic_ms - worker.last_seen_ms;
    if (worker.liveness == Liveness::kLost) {
      if (silent_ms >= limits.worker_memory_ms) forgotten.push_back(name);
    } else if (silent_ms >= limits.lease_ms) {
      LoseWorker(
          turn, worker,
          "worker " + name + " was not heard of for " + std::to_string(silent_ms / 1000) + " s");
    } else if (silent_ms >= limits.lease_ms / 2 && worker.liveness == Liveness::kAlive) {
      worker.liveness = Liveness::kSuspect;
      turn.Touch(worker);
      turn.WantSchedule();
    }
  }
  ForgetWorkers(turn, forgotten);
}

void CheckCancelDeadlines(Turn& turn) {
  const std::set<JobUid> cancelling = turn.state().cancelling;
  for (const JobUid& uid : cancelling) {
    Job& job = *turn.FindJob(uid);
    if (job.cancel_deadline_ms > turn.now().monotonic_ms) continue;
    EndLiveAttempt(turn, job, Cause::kFenced, "its agent did not answer", Death::kUnknown);
    turn.Send(turn.state().workers.at(job.attempt.worker), FenceAttempts{uid, job.epoch + 1});
  }
}

void CheckBackoffs(Turn& turn) {
  auto& backoffs = turn.state().backoffs;
  while (!backoffs.empty() && std::get<0>(*backoffs.begin()) <= turn.now().monotonic_ms) {
    turn.FindJob(std::get<1>(*backoffs.begin()))->backoff_until_ms = 0;
    backoffs.erase(backoffs.begin());
    turn.WantSchedule();
  }
}

void ForgetRequests(Turn& turn) {
  State& state = turn.state();
  const int64_t oldest_ms = turn.now().wall_ms - state.limits.request_memory_ms;
  while (!state.requests_by_age.empty() &&
         std::get<0>(*state.requests_by_age.begin()) < oldest_ms) {
    const std::string id = std::get<1>(*state.requests_by_age.begin());
    state.requests_by_age.erase(state.requests_by_age.begin());
    state.requests.erase(id);
    turn.effects().persist.forgotten_requests.push_back(id);
  }
}

// In strides of a tenth, so that not every tick deletes a row.
void DropEvents(Turn& turn) {
  State& state = turn.state();
  const int64_t kept = state.limits.kept_events;
  if (state.revision - state.oldest_event < kept + kept / 10) return;
  state.oldest_event = state.revision - kept + 1;
  turn.effects().persist.drop_events_below = state.oldest_event;
}

}  // namespace

void On(Turn& turn, const Ticked&) {
  ForgiveOwnAbsence(turn);
  CheckLeases(turn);
  CheckCancelDeadlines(turn);
  CheckBackoffs(turn);
  ForgetRequests(turn);
  DropEvents(turn);
}

}  // namespace tandem::core
