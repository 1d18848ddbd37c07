// State: all that the coordinator knows. Confined to the state thread; changed by Step alone
// (step.h).
//
// Members are grouped by how long they live: "durable" ones go to the store in the same transaction
// as the event that changed them, "live" ones are rebuilt after a restart from what the agents say.
// Containers are ordered, so that the same events give the same effects in the same order.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "coordinator/core/types.h"

namespace tandem::core {

// Every number the core decides by. Everything has a limit.
struct Limits {
  int64_t lease_ms = 10'000;            // silent for half of it: SUSPECT; for all of it: LOST
  int64_t heartbeat_ms = 2'000;         // told to agents
  int64_t cancel_deadline_ms = 30'000;  // after it a cancelled job ends without its agent's word
  int64_t backoff_first_ms = 500;       // before the first retry: most crashes are single
  int64_t backoff_base_ms = 5'000;      // before the second; then doubling
  int64_t backoff_max_ms = 600'000;
  int64_t max_ends_without_commit = 3;  // then FAILED(NO_PROGRESS)
  int64_t max_jobs = 100'000;
  int64_t max_pending_jobs = 10'000;
  int64_t max_workers = 10'000;
  int64_t request_memory_ms = 24 * 3'600'000;  // how long a request id is remembered
  int64_t worker_memory_ms = 24 * 3'600'000;   // how long a lost worker is listed
  int64_t kept_events = 100'000;               // older ones are deleted from the store
};

// The newest attempt of a job. Durable.
struct Attempt {
  AttemptState state = AttemptState::kNone;
  WorkerName worker;
  std::string incarnation;  // of the agent it was given to: another incarnation knows nothing of it
  Cause cause = Cause::kOk;  // ENDED only
};

struct Job {
  // Durable, fixed at creation.
  JobUid uid;
  std::string project;
  std::string name;      // unique in the project
  int64_t priority = 0;  // larger first
  int64_t slots = 1;     // the gang: all on one worker, or none
  int64_t gpus = 0;      // of the gang: one per slot, or 0 on the CPU
  Blob spec;             // the resolved spec, opaque
  std::string spec_digest;
  Revision submit_revision = 0;  // FIFO among equal priorities; kept when the job is queued again
  int64_t create_wall_ms = 0;
  // Durable.
  JobState state = JobState::kPending;
  Revision revision = 0;  // of its last event; the etag
  Epoch epoch = 0;        // of `attempt`; attempts so far
  Attempt attempt;
  std::string message;  // what happened last, in words for people
  std::string
      reason;  // FAILED: a cause, or NO_PROGRESS; PENDING after a failure: its cause; else ""
  int64_t start_wall_ms = 0;  // 0: not yet
  int64_t end_wall_ms = 0;
  int64_t ends_in_a_row = 0;     // failed attempts since the last progress: how long to wait
  int64_t charged_ends = 0;      // those of them that the job caused: when to give up
  int64_t committed_stage = -1;  // furthest committed checkpoint or stage: what counts as progress
  int64_t committed_step = -1;
  std::string checkpoint;  // directory of the newest committed checkpoint, or ""
  Blob report;             // opaque; null until evaluated
  std::string artifact;
  std::string report_path;
  // Live.
  Progress progress;
  int64_t active_stage = -1;  // newest stage seen in this epoch
  int64_t epoch_stage = -1;   // newest commit of this epoch: agents repeat what they are unsure of
  int64_t epoch_step = -1;
  int64_t backoff_until_ms = 0;    // monotonic; a restart of the coordinator ends it early
  int64_t cancel_deadline_ms = 0;  // monotonic; CANCELLING only
  PendingReason pending_reason = PendingReason::kNone;
  std::string pending_detail;
};

enum class Drain { kNone, kByAgent, kByOperator };
enum class Liveness { kAlive, kSuspect, kLost };

// An attempt that occupies slots of a worker, and a GPU with each if it computes on them.
struct Occupant {
  int64_t slots = 0;
  int64_t gpus = 0;
  // False: fenced, but not known to be dead (an agent that did not answer a cancel, an old epoch
  // after a partition).
  bool owned = true;
  // No launch of it is under way: the agent has named it, or has registered without it. From then
  // on its absence in a heartbeat means that it is gone.
  bool settled = false;
  int64_t absent_since_ms = 0;  // monotonic; 0: the newest heartbeat named it, or none has come
};

struct Worker {
  // Durable.
  WorkerName name;
  std::string incarnation;         // new at each start of the agent
  std::string former_incarnation;  // refused if it comes back: two agents must not share a name
  int64_t slots = 0;
  int64_t gpus = 0;
  std::string host, version, device, metrics_address;
  Drain drain = Drain::kNone;  // kByAgent ends with the incarnation
  // Live.
  ConnectionId connection = 0;  // 0: not connected
  Liveness liveness = Liveness::kSuspect;
  int64_t last_seen_ms = 0;       // monotonic
  int64_t last_seen_wall_ms = 0;  // 0: not since the coordinator started
  std::map<AttemptRef, Occupant> occupants;
};

// A create request that has been answered.
struct RequestRecord {
  std::string id;
  std::string digest;  // of what was asked
  JobUid job;
  int64_t wall_ms = 0;
};

struct QueueKey {
  int64_t negative_priority = 0;
  Revision submit_revision = 0;
  JobUid uid;
  friend bool operator<(const QueueKey& a, const QueueKey& b) {
    return std::tie(a.negative_priority, a.submit_revision, a.uid) <
           std::tie(b.negative_priority, b.submit_revision, b.uid);
  }
};

struct Counters {
  int64_t stale_messages = 0;  // from attempts of another epoch, or unknown ones
};

struct State {
  Limits limits;
  // Durable.
  Revision revision = 0;      // of the newest event
  Revision oldest_event = 1;  // of the oldest event that the store keeps
  std::map<JobUid, Job> jobs;
  std::map<WorkerName, Worker> workers;
  std::map<std::string, RequestRecord> requests;
  // Live.
  int64_t generation = 0;    // the store's: larger with each coordinator
  bool loaded = false;       // StoreLoaded was stepped; nothing else may come before it
  int64_t last_tick_ms = 0;  // monotonic
  Counters counters;
  // Derived from the above.
  std::map<std::tuple<std::string, std::string>, JobUid> job_by_name;  // (project, name)
  std::map<std::tuple<std::string, std::string>, int64_t>
      name_suffix;           // all smaller ones are taken
  std::set<QueueKey> queue;  // PENDING jobs, in the order in which they are tried
  // The same by why they wait, so that a pass visits only those whose reason may change.
  std::map<PendingReason, std::set<QueueKey>> waiting;
  std::set<std::tuple<int64_t, JobUid>> backoffs;              // (backoff_until_ms, uid)
  std::set<JobUid> cancelling;                                 // CANCELLING jobs
  std::set<std::tuple<int64_t, std::string>> requests_by_age;  // (wall_ms, id)
};

QueueKey QueueKeyOf(const Job& job);
// What an attempt of the job takes of a worker.
Occupant OccupantOf(const Job& job);
int64_t SlotsInUse(const Worker& worker);
int64_t GpusInUse(const Worker& worker);
WorkerState StateOf(const Worker& worker);
// May be given an attempt now: connected, alive, not draining.
bool TakesJobs(const Worker& worker);
// The attempt that a message names, if it is the job's live one on that worker; else null.
const Job* LiveJob(const State& state, const AttemptRef& attempt, const WorkerName& worker);
// Attempts of the job below this epoch are fenced.
Epoch FirstAllowedEpoch(const State& state, const JobUid& job);

// The sentence and the closed word that a person is shown (Job.message and Job.reason of the API).
std::string MessageOf(const Job& job);
std::string ReasonOf(const Job& job);

}  // namespace tandem::core
