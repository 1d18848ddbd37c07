// WorkerRegistered: an agent is there, for the first time, again on a new stream, or again after
// its own restart. WorkerDisconnected: its stream has ended.
//
// What the agent says lives is compared with what should live on it:
//   ours, named           adopted; a stop that it may have missed is repeated
//   ours, not named       LAUNCHING: the launch may be lost, and is repeated; an agent runs an
//                         epoch once. Later: its end may be on the way, and is awaited for a lease
//                         (on_attempt_reported.cc)
//   former incarnation's  ended, NODE_LOST: a restarted agent has killed what it found; unless it
//                         says that it holds the end, which then is awaited as well
//   given up, and its end is held here: awaited as well, if nothing has taken its place
//   not ours              fenced
#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "coordinator/core/attempts.h"
#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

Status CheckRegistration(const State& state, const WorkerRegistered& event) {
  if (event.worker.empty() || event.incarnation.empty()) {
    return InvalidArgument("a registration needs the worker's name and incarnation");
  }
  if (event.slots < 1) {
    return InvalidArgument("worker " + event.worker + " registers " + std::to_string(event.slots) +
                           " slots; must be at least 1");
  }
  if (event.gpus < 0) {
    return InvalidArgument("worker " + event.worker + " registers " + std::to_string(event.gpus) +
                           " GPUs; must be at least 0");
  }
  const auto found = state.workers.find(event.worker);
  if (found == state.workers.end()) {
    const bool is_full = static_cast<int64_t>(state.workers.size()) >= state.limits.max_workers;
    return is_full ? ResourceExhausted("the coordinator knows " +
                                       std::to_string(state.workers.size()) + " workers, its limit")
                   : Status::Ok();
  }
  const Worker& worker = found->second;
  if (event.incarnation == worker.former_incarnation) {
    return AlreadyExists("another agent has registered as " + event.worker +
                         "; give each its own --name");
  }
  if (event.incarnation != worker.incarnation) return Status::Ok();
  const auto [what, had, has] = event.slots != worker.slots
                                    ? std::tuple(" slots", worker.slots, event.slots)
                                    : std::tuple(" GPUs", worker.gpus, event.gpus);
  if (has != had) {
    return InvalidArgument("worker " + event.worker + " had " + std::to_string(had) + what +
                           " and has " + std::to_string(has) +
                           " now; restart the agent to change them");
  }
  return Status::Ok();
}

void Describe(Worker& worker, const WorkerRegistered& event) {
  if (worker.incarnation != event.incarnation) {
    worker.former_incarnation = std::exchange(worker.incarnation, event.incarnation);
    if (worker.drain == Drain::kByAgent) worker.drain = Drain::kNone;
  }
  worker.name = event.worker;
  worker.slots = event.slots;
  worker.gpus = event.gpus;
  worker.host = event.host;
  worker.version = event.version;
  worker.device = event.device;
  worker.metrics_address = event.metrics_address;
}

void Connect(Turn& turn, Worker& worker, ConnectionId connection) {
  if (worker.connection != connection) {
    turn.Send(worker, RefuseConnection{Status(Code::kAborted, "replaced by a newer stream")});
  }
  worker.connection = connection;
  worker.liveness = Liveness::kAlive;
  worker.last_seen_ms = turn.now().monotonic_ms;
  worker.last_seen_wall_ms = turn.now().wall_ms;
  const Limits& limits = turn.limits();
  turn.Send(worker,
            ConfirmRegistration{limits.lease_ms, limits.heartbeat_ms, turn.state().generation});
}

void RepeatStop(Turn& turn, Job& job, const Worker& worker) {
  if (job.attempt.state != AttemptState::kDraining) return;
  if (job.state == JobState::kCancelling) {
    StopLiveAttempt(turn, job, worker, StopKind::kKill, "cancel requested");
  } else {
    StopLiveAttempt(turn, job, worker, StopKind::kCheckpointAndStop,
                    "worker " + worker.name + " is draining");
  }
}

bool WasGivenUp(const Job& job, const AttemptRef& attempt, const WorkerName& worker) {
  return job.state == JobState::kPending && job.epoch == attempt.epoch &&
         job.attempt.worker == worker && job.attempt.cause == Cause::kNodeLost;
}

// The lease has run out, but the epoch is still the newest: no other process has run, and what the
// end says of results is true. Without it a job that finished behind a broken network runs again.
void ReclaimEnded(Turn& turn, Worker& worker, const std::set<AttemptRef>& ended) {
  for (const AttemptRef& attempt : ended) {
    Job* job = turn.FindJob(attempt.job);
    if (job == nullptr || !WasGivenUp(*job, attempt, worker.name)) continue;
    worker.occupants.erase(attempt);
    const bool fits = SlotsInUse(worker) + job->slots <= worker.slots &&
                      GpusInUse(worker) + job->gpus <= worker.gpus;
    if (!fits) continue;  // restarted with fewer
    worker.occupants[attempt] = OccupantOf(*job);
    job->attempt.state = AttemptState::kRunning;
    turn.Move(*job, JobState::kAdmitted, "reclaimed",
              "worker " + worker.name + " is back and holds the end of attempt " +
                  std::to_string(attempt.epoch));
  }
}

void ReconcileOwned(Turn& turn, Worker& worker, const std::set<AttemptRef>& live,
                    const std::set<AttemptRef>& ended) {
  for (const AttemptRef& attempt : OwnedAttempts(worker)) {
    Job& job = *turn.FindJob(attempt.job);
    Occupant& occupant = worker.occupants.at(attempt);
    occupant.absent_since_ms = 0;
    if (ended.contains(attempt)) {
      occupant.settled = true;
    } else if (job.attempt.incarnation != worker.incarnation) {
      EndLiveAttempt(turn, job, Cause::kNodeLost, "the agent of " + worker.name + " was restarted",
                     Death::kConfirmed);
    } else if (live.contains(attempt)) {
      occupant.settled = true;
      RepeatStop(turn, job, worker);
    } else if (job.attempt.state == AttemptState::kLaunching) {
      SendLaunch(turn, job, worker);
    } else {
      occupant.settled = true;
    }
  }
}

void ReconcileFenced(Turn& turn, Worker& worker, const std::set<AttemptRef>& live) {
  std::erase_if(worker.occupants, [&live](const auto& entry) {
    return !entry.second.owned && !live.contains(entry.first);
  });
  for (const AttemptRef& attempt : live) {
    if (turn.FindLive(attempt, worker) == nullptr) FenceStale(turn, worker, attempt);
  }
}

}  // namespace

void On(Turn& turn, const WorkerRegistered& event) {
  const Status status = CheckRegistration(turn.state(), event);
  if (!status.ok()) {
    turn.effects().commands.push_back({event.worker, event.connection, RefuseConnection{status}});
    return;
  }
  Worker& worker = turn.state().workers[event.worker];
  Describe(worker, event);
  turn.Save(worker);
  Connect(turn, worker, event.connection);
  const std::set<AttemptRef> live(event.live.begin(), event.live.end());
  const std::set<AttemptRef> ended(event.ended.begin(), event.ended.end());
  ReclaimEnded(turn, worker, ended);
  ReconcileOwned(turn, worker, live, ended);
  ReconcileFenced(turn, worker, live);
  turn.WantSchedule();
}

void On(Turn& turn, const WorkerDisconnected& event) {
  Worker* worker = turn.FindWorker(event.worker);
  if (worker == nullptr || worker->connection != event.connection) return;
  worker->connection = 0;
  turn.Touch(*worker);
  turn.WantSchedule();
}

}  // namespace tandem::core
