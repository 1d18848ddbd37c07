// Event: everything that can happen to the coordinator. Facts, in the past tense; what follows from
// them is Step's to say.
//
// Events from agents carry the connection they came on. An event of a connection that is no longer
// the worker's is ignored: the agent registers again on its new stream and says there what lives.
// Values; built by the service.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/core/effect.h"
#include "coordinator/core/state.h"
#include "coordinator/core/types.h"

namespace tandem::core {

// First of all, once: what the store held.
struct StoreLoaded {
  int64_t generation = 0;
  Revision revision = 0;
  Revision oldest_event = 1;
  std::vector<Job> jobs;  // durable members only
  std::vector<Worker> workers;
  std::vector<RequestRecord> requests;
};

// --- From users. Each gets exactly one Reply.

struct JobCreated {
  RequestToken token = 0;
  std::string request_id;      // "": not idempotent
  std::string request_digest;  // same id and same digest: the first answer again; another digest:
                               // kInvalidArgument
  JobUid uid;                  // fresh; unused if the request is replayed
  std::string project;
  std::string name;  // if taken in the project, "-2", "-3", ... is appended
  int64_t priority = 0;
  int64_t slots = 1;
  int64_t gpus = 0;  // as many as slots, or 0 on the CPU
  Blob spec;
  std::string spec_digest;
  std::string message;  // a warning to show until something happens, or ""
};

// Idempotent: fine while CANCELLING and when CANCELLED. kFailedPrecondition when it has ended
// otherwise.
struct JobCancelRequested {
  RequestToken token = 0;
  JobUid uid;
  Revision etag = 0;  // 0: whatever it is; else kAborted unless it is the job's revision
};

// No new attempts; running ones checkpoint, stop and move.
struct WorkerDrainRequested {
  RequestToken token = 0;
  WorkerName worker;
};

struct WorkerUndrainRequested {
  RequestToken token = 0;
  WorkerName worker;
};

// --- From agents.

struct WorkerRegistered {
  WorkerName worker;
  ConnectionId connection = 0;
  std::string incarnation;
  int64_t slots = 0;
  int64_t gpus = 0;
  std::string host, version, device, metrics_address;
  std::vector<AttemptRef> live;
  std::vector<AttemptRef> ended;  // their ends follow on this stream (AttemptEnded)
};

// The stream ended. The lease runs on: agents come back.
struct WorkerDisconnected {
  WorkerName worker;
  ConnectionId connection = 0;
};

// The agent is about to leave (SIGTERM): as a drain, until it registers with a new incarnation.
struct WorkerDrainAnnounced {
  WorkerName worker;
  ConnectionId connection = 0;
};

// An attempt that the agent has, LAUNCHING or RUNNING. (ENDED is AttemptEnded, also when it comes
// in a heartbeat.)
struct AttemptReport {
  AttemptRef attempt;
  bool running = false;
  Progress progress;
  bool has_progress = false;
};

// `attempts` names every live attempt of the agent. Answered by AckHeartbeat, so that the agent
// learns that all it had said before on this stream is durable.
struct HeartbeatReceived {
  WorkerName worker;
  ConnectionId connection = 0;
  std::vector<AttemptReport> attempts;
  int64_t sequence = 0;  // 0: wants no answer
};

// One attempt changed its phase or has news, between heartbeats.
struct AttemptReported {
  WorkerName worker;
  ConnectionId connection = 0;
  AttemptReport report;
};

struct CheckpointCommitted {
  WorkerName worker;
  ConnectionId connection = 0;
  AttemptRef attempt;
  int64_t stage_index = 0;
  int64_t step = 0;
  std::string directory;
  std::string manifest_sha256;
  int64_t bytes = 0;
};

struct StageCommitted {
  WorkerName worker;
  ConnectionId connection = 0;
  AttemptRef attempt;
  std::string stage;
  int64_t stage_index = 0;
  std::string output_sha256;
};

// Repeated by the agent until acknowledged (AckAttempt).
struct AttemptEnded {
  WorkerName worker;
  ConnectionId connection = 0;
  AttemptRef attempt;
  Cause cause = Cause::kRankExit;
  std::string detail;
  Blob report;  // null: none
  std::string artifact;
  std::string report_path;
};

// --- From the clock: leases, deadlines, backoffs. Every 100 ms or so; any later is merely late.
struct Ticked {};

using Event = std::variant<StoreLoaded, JobCreated, JobCancelRequested, WorkerDrainRequested,
                           WorkerUndrainRequested, WorkerRegistered, WorkerDisconnected,
                           WorkerDrainAnnounced, HeartbeatReceived, AttemptReported,
                           CheckpointCommitted, StageCommitted, AttemptEnded, Ticked>;

// "JobCreated", for logs and transcripts.
const char* Name(const Event& event);

}  // namespace tandem::core
