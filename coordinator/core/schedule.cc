#include "coordinator/core/schedule.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/attempts.h"

namespace tandem::core {
namespace {

// Slots that one kind of job may use; `most_free` shrinks as jobs are admitted.
struct Room {
  int64_t most_free = 0;  // on one worker that takes jobs now
  int64_t largest = 0;    // of the largest worker that takes jobs now or soon
};

// What the pass knows of the fleet.
struct Fleet {
  bool any_takes_jobs = false;
  Room any;       // for a job on the CPU
  Room with_gpu;  // for a job that needs a GPU with each slot
  const Room& For(const Job& job) const { return job.gpus > 0 ? with_gpu : any; }
};

int64_t FreeSlots(const Worker& worker) {
  return std::max<int64_t>(0, worker.slots - SlotsInUse(worker));
}

int64_t FreeSlotsWithGpu(const Worker& worker) {
  return std::min(FreeSlots(worker), std::max<int64_t>(0, worker.gpus - GpusInUse(worker)));
}

Fleet Survey(const State& state) {
  Fleet fleet;
  for (const auto& [name, worker] : state.workers) {
    if (worker.liveness == Liveness::kLost || worker.drain != Drain::kNone) continue;
    fleet.any.largest = std::max(fleet.any.largest, worker.slots);
    fleet.with_gpu.largest = std::max(fleet.with_gpu.largest, std::min(worker.slots, worker.gpus));
    if (!TakesJobs(worker)) continue;
    fleet.any_takes_jobs = true;
    fleet.any.most_free = std::max(fleet.any.most_free, FreeSlots(worker));
    fleet.with_gpu.most_free = std::max(fleet.with_gpu.most_free, FreeSlotsWithGpu(worker));
  }
  return fleet;
}

Worker* BestFit(State& state, const Job& job) {
  const auto free_slots = job.gpus > 0 ? FreeSlotsWithGpu : FreeSlots;
  // A job on the CPU leaves machines with GPUs to those that need them.
  const auto cost = [&](const Worker& worker) {
    return std::pair(job.gpus == 0 && worker.gpus > 0, free_slots(worker));
  };
  Worker* best = nullptr;
  for (auto& [name, worker] : state.workers) {
    if (!TakesJobs(worker) || free_slots(worker) < job.slots) continue;
    if (best == nullptr || cost(worker) < cost(*best)) best = &worker;
  }
  return best;
}

std::string Needs(const Job& job) {
  std::string text = "needs " + std::to_string(job.slots) + (job.slots == 1 ? " slot" : " slots");
  if (job.gpus > 0) text += job.slots == 1 ? " with a GPU" : " with a GPU each";
  return text + " on one worker; the ";
}

// Jobs that are not in line now, and hold nobody up.
bool IsSetAside(Turn& turn, Job& job, const Fleet& fleet) {
  if (job.backoff_until_ms > turn.now().monotonic_ms) {
    turn.Explain(job, PendingReason::kBackoff, "waits before the next attempt");
    return true;
  }
  const int64_t largest = fleet.For(job).largest;
  if (fleet.any.largest == 0 || job.slots <= largest) return false;
  if (largest == 0) {
    turn.Explain(job, PendingReason::kNoGpu,
                 "needs a GPU and no worker has one; start tandem-worker on a machine with a GPU, "
                 "or submit the job with parallelism.device: cpu");
  } else {
    turn.Explain(job, PendingReason::kTooLarge,
                 Needs(job) + "largest has " + std::to_string(largest));
  }
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
    const int64_t most_free = fleet.For(job).most_free;
    if (job.slots <= most_free) {
      BeginAttempt(turn, job, *BestFit(state, job));
      fleet = Survey(state);
      continue;
    }
    if (fleet.any_takes_jobs) {
      turn.Explain(job, PendingReason::kNoCapacity,
                   Needs(job) + "most free is " + std::to_string(most_free));
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
