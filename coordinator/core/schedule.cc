#include "coordinator/core/schedule.h"

#include <algorithm>
#include <string>
#include <utility>

#include "coordinator/core/attempts.h"

namespace tandem::core {
namespace {

// What the pass knows of the fleet; `most_free` shrinks as jobs are admitted.
struct Fleet {
  bool any_takes_jobs = false;
  int64_t most_free = 0;  // on one worker that takes jobs now
  int64_t largest = 0;    // slots of the largest worker that takes jobs now or soon
};

int64_t FreeSlots(const Worker& worker) {
  return std::max<int64_t>(0, worker.slots - SlotsInUse(worker));
}

Fleet Survey(const State& state) {
  Fleet fleet;
  for (const auto& [name, worker] : state.workers) {
    if (worker.liveness == Liveness::kLost || worker.drain != Drain::kNone) continue;
    fleet.largest = std::max(fleet.largest, worker.slots);
    if (!TakesJobs(worker)) continue;
    fleet.any_takes_jobs = true;
    fleet.most_free = std::max(fleet.most_free, FreeSlots(worker));
  }
  return fleet;
}

Worker* BestFit(State& state, int64_t slots) {
  Worker* best = nullptr;
  for (auto& [name, worker] : state.workers) {
    if (!TakesJobs(worker) || FreeSlots(worker) < slots) continue;
    if (best == nullptr || FreeSlots(worker) < FreeSlots(*best)) best = &worker;
  }
  return best;
}

std::string Slots(int64_t slots) {
  return std::to_string(slots) + (slots == 1 ? " slot" : " slots");
}

void Explain(Turn& turn, Job& job, PendingReason reason, std::string detail) {
  if (job.pending_reason == reason && job.pending_detail == detail) return;
  job.pending_reason = reason;
  job.pending_detail = std::move(detail);
  turn.Touch(job);
}

bool InBackoff(const Job& job, const Now& now) {
  return job.backoff_until_ms > now.monotonic_ms;
}

void ExplainNoRoom(Turn& turn, Job& job, const Fleet& fleet) {
  if (!fleet.any_takes_jobs) {
    Explain(turn, job, PendingReason::kNoWorker,
            "no worker takes jobs now; start one with tandem-worker, or undrain one");
  } else {
    Explain(turn, job, PendingReason::kNoCapacity,
            "needs " + Slots(job.slots) + " on one worker; the most free is " +
                std::to_string(fleet.most_free));
  }
}

}  // namespace

void Schedule(Turn& turn) {
  State& state = turn.state();
  Fleet fleet = Survey(state);
  std::string blocker;
  for (auto next = state.queue.begin(); next != state.queue.end();) {
    Job& job = state.jobs.at(next->uid);
    ++next;  // admission takes the job out of the queue
    if (InBackoff(job, turn.now())) {
      Explain(turn, job, PendingReason::kBackoff, "waits before the next attempt");
    } else if (fleet.largest > 0 && job.slots > fleet.largest) {
      Explain(turn, job, PendingReason::kTooLarge,
              "needs " + Slots(job.slots) + " on one worker; the largest has " +
                  std::to_string(fleet.largest));
    } else if (!blocker.empty()) {
      Explain(turn, job, PendingReason::kHigherPriorityFirst, "waits behind job " + blocker);
    } else if (job.slots <= fleet.most_free) {
      BeginAttempt(turn, job, *BestFit(state, job.slots));
      fleet = Survey(state);
    } else {
      ExplainNoRoom(turn, job, fleet);
      if (fleet.any_takes_jobs) blocker = job.name;
    }
  }
}

}  // namespace tandem::core
