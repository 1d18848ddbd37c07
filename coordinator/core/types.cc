#include "coordinator/core/types.h"

#include <array>
#include <cstddef>

namespace tandem::core {
namespace {

constexpr std::array<const char*, kNumJobStates> kJobStates = {
    "PENDING", "ADMITTED", "RUNNING", "CANCELLING", "CANCELLED", "SUCCEEDED", "FAILED"};
constexpr std::array<const char*, 5> kAttemptStates = {"NONE", "LAUNCHING", "RUNNING", "DRAINING",
                                                       "ENDED"};
constexpr std::array<const char*, kNumCauses> kCauses = {
    "OK",       "RANK_EXIT",      "OOM",     "HANG", "COLLECTIVE_ERROR", "LAUNCH_FAILED", "STOPPED",
    "BAD_PLAN", "NONFINITE_LOSS", "STORAGE", "DATA", "PREPARE_FAILED",   "REPORT_FAILED", "FENCED",
    "NODE_LOST"};
constexpr std::array<const char*, kNumPendingReasons> kPendingReasons = {
    "", "NO_WORKER", "NO_CAPACITY", "TOO_LARGE", "NO_GPU", "BACKOFF", "HIGHER_PRIORITY_FIRST"};
constexpr std::array<const char*, kNumWorkerStates> kWorkerStates = {"READY", "SUSPECT", "LOST",
                                                                     "DRAINING", "DRAINED"};

template <typename E, size_t N>
const char* NameIn(const std::array<const char*, N>& names, E value) {
  return names.at(static_cast<size_t>(value));
}

template <typename E, size_t N>
bool FromName(const std::array<const char*, N>& names, const std::string& name, E* value) {
  for (size_t i = 0; i < N; ++i) {
    if (name == names[i]) {
      *value = static_cast<E>(i);
      return true;
    }
  }
  return false;
}

}  // namespace

const char* Name(JobState state) {
  return NameIn(kJobStates, state);
}
const char* Name(AttemptState state) {
  return NameIn(kAttemptStates, state);
}
const char* Name(Cause cause) {
  return NameIn(kCauses, cause);
}
const char* Name(PendingReason reason) {
  return NameIn(kPendingReasons, reason);
}
const char* Name(WorkerState state) {
  return NameIn(kWorkerStates, state);
}

Cause CauseFromName(const std::string& name) {
  Cause cause = Cause::kRankExit;
  FromName(kCauses, name, &cause);
  return cause;
}

bool JobStateFromName(const std::string& name, JobState* state) {
  return FromName(kJobStates, name, state);
}

bool AttemptStateFromName(const std::string& name, AttemptState* state) {
  return FromName(kAttemptStates, name, state);
}

bool IsTerminal(JobState state) {
  return state == JobState::kCancelled || state == JobState::kSucceeded ||
         state == JobState::kFailed;
}

bool IsLive(AttemptState state) {
  return state == AttemptState::kLaunching || state == AttemptState::kRunning ||
         state == AttemptState::kDraining;
}

}  // namespace tandem::core
