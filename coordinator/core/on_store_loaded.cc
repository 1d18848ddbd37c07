// StoreLoaded: the coordinator has started. Nothing is sent yet: the agents register, and are told
// then.
//
// Workers are SUSPECT, with a whole lease to register before they are lost: a restart of the
// coordinator alone ends no attempt.
#include <tuple>
#include <utility>

#include "base/status.h"
#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

void ResetLive(Job& job) {
  job.progress = {};
  job.active_stage = -1;
  job.epoch_stage = -1;
  job.epoch_step = -1;
  job.backoff_until_ms = 0;
  job.cancel_deadline_ms = 0;
  job.pending_reason = PendingReason::kNone;
  job.pending_detail.clear();
}

void AddWorker(Turn& turn, Worker worker) {
  worker.connection = 0;
  worker.liveness = Liveness::kSuspect;
  worker.last_seen_ms = turn.now().monotonic_ms;
  worker.last_seen_wall_ms = 0;
  worker.occupants.clear();
  turn.Touch(worker);
  turn.state().workers[worker.name] = std::move(worker);
}

void AddJob(Turn& turn, Job job) {
  State& state = turn.state();
  ResetLive(job);
  state.job_by_name[{job.project, job.name}] = job.uid;
  if (job.state == JobState::kPending) turn.Enqueue(job);
  if (job.state == JobState::kCancelling) {
    state.cancelling.insert(job.uid);
    job.cancel_deadline_ms = turn.now().monotonic_ms + turn.limits().cancel_deadline_ms;
  }
  if (IsLive(job.attempt.state)) {
    Worker* worker = turn.FindWorker(job.attempt.worker);
    TANDEM_CHECK_MSG(worker != nullptr, job.uid + " runs on unknown worker " + job.attempt.worker);
    worker->occupants[{job.uid, job.epoch}] = OccupantOf(job);
  }
  turn.Touch(job);
  state.jobs[job.uid] = std::move(job);
}

}  // namespace

void On(Turn& turn, const StoreLoaded& event) {
  State& state = turn.state();
  state.loaded = true;
  state.last_tick_ms = turn.now().monotonic_ms;
  state.generation = event.generation;
  state.revision = event.revision;
  state.oldest_event = event.oldest_event;
  for (const Worker& worker : event.workers) AddWorker(turn, worker);
  for (const Job& job : event.jobs) AddJob(turn, job);
  for (const RequestRecord& request : event.requests) {
    state.requests[request.id] = request;
    state.requests_by_age.insert({request.wall_ms, request.id});
  }
  turn.WantSchedule();
}

}  // namespace tandem::core
