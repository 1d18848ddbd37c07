// Effects: what Step wants done, in the order in which it must be done: persist, reply, command,
// notify.
//
// Nothing after `persist` may leave the process before the commit has succeeded. If the commit
// fails, the memory is ahead of the disk: drop all effects, answer kUnavailable, and start again
// from the store. Values; no thread of their own.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "coordinator/core/state.h"
#include "coordinator/core/types.h"

namespace tandem::core {

// One line of a job's history; one per change of a job's durable state, with the next revision.
struct JobEvent {
  Revision revision = 0;
  JobUid job;
  Epoch epoch = 0;
  int64_t wall_ms = 0;
  // created, admitted, reclaimed, started, stage_started, stage_committed, checkpoint, stopping,
  // attempt_ended, cancelling, cancelled, succeeded, failed
  std::string kind;
  std::string message;
  JobState before = JobState::kPending;  // equal when only something else changed
  JobState after = JobState::kPending;
  std::string reason;  // attempt_ended: the cause; failed: the cause or NO_PROGRESS; else ""
};

// Rows to write in one transaction. A row replaces the one with its key.
struct Persist {
  std::vector<Job> jobs;         // as they are after the step, each once
  std::vector<JobEvent> events;  // ascending revisions without a gap
  std::vector<RequestRecord> requests;
  std::vector<Worker> workers;
  std::vector<std::string> forgotten_requests;
  std::vector<WorkerName> forgotten_workers;
  Revision drop_events_below = 0;  // 0: none
  bool empty() const;
};

// The answer to a user's event. The job or worker is to be read from the state as published with
// this step.
struct Reply {
  RequestToken token = 0;
  Status status;
  JobUid job;             // set when ok and about a job
  WorkerName worker;      // set when ok and about a worker
  bool replayed = false;  // a create request that had been answered before
};

// Commands go to one stream of one agent. They follow from the state: if the stream is gone, drop
// them; they are given again when the agent registers. All are idempotent by (job, epoch).
struct LaunchAttempt {
  AttemptRef attempt;
  std::string job_name;
  std::string project;
  int64_t slots = 0;
  Blob spec;
};
struct StopAttempt {
  AttemptRef attempt;
  StopKind kind = StopKind::kKill;
  std::string reason;
};
struct FenceAttempts {  // FenceBelow: attempts of the job below `epoch` are to be killed
  JobUid job;
  Epoch epoch = 0;
};
struct AckAttempt {  // the end is durable (or of no interest): stop repeating it
  AttemptRef attempt;
};
struct AckHeartbeat {  // all that came before it on its stream is durable
  int64_t sequence = 0;
};
struct ConfirmRegistration {
  int64_t lease_ms = 0;
  int64_t heartbeat_ms = 0;
  int64_t generation = 0;
};
struct RefuseConnection {  // tell why and end the stream
  Status status;
};
struct Command {
  WorkerName worker;
  ConnectionId connection = 0;
  std::variant<LaunchAttempt, StopAttempt, FenceAttempts, AckAttempt, AckHeartbeat,
               ConfirmRegistration, RefuseConnection>
      what;
};

struct Effects {
  Persist persist;
  std::vector<Reply> replies;
  std::vector<Command> commands;
  // Notify: persist.events are what watchers get. Beside them, whatever looks different now (also
  // live state, such as progress and pending reasons), for the published snapshot.
  std::set<JobUid> touched_jobs;
  std::set<WorkerName> touched_workers;
  std::set<WorkerName> removed_workers;
};

}  // namespace tandem::core
