#include "coordinator/core/schedule.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

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

// Jobs that are not in line now, and hold nobody up.
bool IsSetAside(Turn& turn, Job& job, const Fleet& fleet) {
  if (job.backoff_until_ms > turn.now().monotonic_ms) {
    turn.Explain(job, PendingReason::kBackoff, "waits before the next attempt");
    return true;
  }
  if (fleet.largest == 0 || job.slots <= fleet.largest) return false;
  turn.Explain(job, PendingReason::kTooLarge,
               "needs " + Slots(job.slots) + " on one worker; the largest has " +
                   std::to_string(fleet.largest));
  return true;
}

void ExplainNoWorker(Turn& turn, Job& job) {
  turn.Explain(job, PendingReason::kNoWorker,
               "no worker takes jobs now; start one with tandem-worker, or undrain one");
}

// Admits from the head of the queue on; the first job that must wait is told why, and returned.
std::optional<QueueKey> AdmitInOrder(Turn& turn, Fleet& fleet) {
  State& state = turn.state();
  for (auto next = state.queue.begin(); next != state.queue.end();) {
    const QueueKey key = *next++;  // admission takes the job out of the queue
    Job& job = state.jobs.at(key.uid);
    if (IsSetAside(turn, job, fleet)) continue;
    if (job.slots <= fleet.most_free) {
      BeginAttempt(turn, job, *BestFit(state, job.slots));
      fleet = Survey(state);
      continue;
    }
    if (fleet.any_takes_jobs) {
      turn.Explain(job, PendingReason::kNoCapacity,
                   "needs " + Slots(job.slots) + " on one worker; the most free is " +
                       std::to_string(fleet.most_free));
    } else {
      ExplainNoWorker(turn, job);
    }
    return key;
  }
  return std::nullopt;
}

// Those behind `head`: nothing of theirs changes while it waits, so only those are visited that do
// not say so yet.
void ExplainRest(Turn& turn, const QueueKey& head, const Fleet& fleet) {
  const PendingReason rest =
      fleet.any_takes_jobs ? PendingReason::kHigherPriorityFirst : PendingReason::kNoWorker;
  std::vector<QueueKey> visited;
  for (const auto& [reason, keys] : turn.state().waiting) {
    if (reason != rest) visited.insert(visited.end(), keys.upper_bound(head), keys.end());
  }
  for (const QueueKey& key : visited) {
    Job& job = turn.state().jobs.at(key.uid);
    if (IsSetAside(turn, job, fleet)) continue;
    if (fleet.any_takes_jobs) {
      turn.Explain(job, rest, "waits behind jobs of higher priority, or as high and older");
    } else {
      ExplainNoWorker(turn, job);
    }
  }
}

}  // namespace

void Schedule(Turn& turn) {
  Fleet fleet = Survey(turn.state());
  const std::optional<QueueKey> head = AdmitInOrder(turn, fleet);
  if (head) ExplainRest(turn, *head, fleet);
}

}  // namespace tandem::core
