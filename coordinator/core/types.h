// Types: the words that the core, its store and the service share. Plain values, copied freely; no
// behaviour but names.
//
// Why not protobuf: the core must compile and be tested without it, and what a database row holds
// must not change because a message did. The service translates at its edge.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>

namespace tandem::core {

using JobUid = std::string;  // immutable, names folders; chosen by the service
using WorkerName = std::string;
using Epoch = int64_t;          // numbers a job's attempts: 1, 2, ...; 0: none yet
using Revision = int64_t;       // numbers events over all jobs: 1, 2, ...
using RequestToken = uint64_t;  // names a caller that waits for a Reply; 0: nobody waits
using ConnectionId =
    uint64_t;  // names one stream of one agent, unique within a coordinator process; 0: none
using Blob =
    std::shared_ptr<const std::string>;  // opaque bytes, shared so that copies of a Job stay cheap

inline Blob MakeBlob(std::string bytes) {
  return std::make_shared<const std::string>(std::move(bytes));
}

// Time comes from outside. Leases and deadlines use the monotonic clock, records for people the
// wall clock.
struct Now {
  int64_t monotonic_ms = 0;
  int64_t wall_ms = 0;
};

enum class JobState { kPending, kAdmitted, kRunning, kCancelling, kCancelled, kSucceeded, kFailed };
inline constexpr int kNumJobStates = 7;

enum class AttemptState {
  kNone,       // the job has not been launched yet
  kLaunching,  // the launch is durable, the agent may or may not have it
  kRunning,
  kDraining,  // asked to stop; still running
  kEnded,
};

// Why an attempt ended. What follows from each is decided in requeue.h.
enum class Cause {
  kOk,
  kRankExit,
  kOom,
  kHang,
  kCollectiveError,
  kLaunchFailed,
  kStopped,  // after a checkpoint, on request
  kBadPlan,
  kNonFiniteLoss,
  kStorage,
  kData,
  kPrepareFailed,
  kReportFailed,
  kFenced,  // given up without the agent's word
  kNodeLost,
};
inline constexpr int kNumCauses = 15;

// Why a job waits.
enum class PendingReason {
  kNone,                 // it does not
  kNoWorker,             // no worker is connected and takes jobs
  kNoCapacity,           // first in line, but the slots are taken
  kTooLarge,             // no worker has that many slots at all; blocks nobody
  kNoGpu,                // no worker has a GPU at all; blocks nobody
  kBackoff,              // waits after a failed attempt; blocks nobody
  kHigherPriorityFirst,  // another job is first in line
};
inline constexpr int kNumPendingReasons = 7;

// What a person is told of a worker; derived (state.h, StateOf).
enum class WorkerState { kReady, kSuspect, kLost, kDraining, kDrained };
inline constexpr int kNumWorkerStates = 5;

enum class StopKind { kCheckpointAndStop, kKill };

// One gang launch.
struct AttemptRef {
  JobUid job;
  Epoch epoch = 0;
  friend bool operator==(const AttemptRef& a, const AttemptRef& b) {
    return a.epoch == b.epoch && a.job == b.job;
  }
  friend bool operator<(const AttemptRef& a, const AttemptRef& b) {
    return std::tie(a.job, a.epoch) < std::tie(b.job, b.epoch);
  }
};

// How far a job is. Live state: never persisted, lost in a restart, refreshed by the next
// heartbeat.
struct Progress {
  std::string stage;
  int64_t stage_index = 0;
  int64_t stage_count = 0;
  int64_t step = 0;
  int64_t steps = 0;
  double loss = 0;
  double tokens_per_second = 0;
  double eta_seconds = 0;
  int64_t checkpoint_step = 0;
  double step_seconds = 0;
};

// "PENDING", "RANK_EXIT", "NO_CAPACITY", ...: the spelling of the API, the metrics and the
// database.
const char* Name(JobState state);
const char* Name(AttemptState state);
const char* Name(Cause cause);
const char* Name(PendingReason reason);
const char* Name(WorkerState state);
// The reverse. An unknown cause is kRankExit (whatever a newer agent means, it is a failure); else
// false.
Cause CauseFromName(const std::string& name);
bool JobStateFromName(const std::string& name, JobState* state);
bool AttemptStateFromName(const std::string& name, AttemptState* state);

// SUCCEEDED, FAILED, CANCELLED: never left again.
bool IsTerminal(JobState state);
// LAUNCHING, RUNNING, DRAINING.
bool IsLive(AttemptState state);

}  // namespace tandem::core
