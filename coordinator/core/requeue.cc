#include "coordinator/core/requeue.h"

#include <algorithm>

namespace tandem::core {
namespace {

// base · 2^doublings, at most backoff_max.
int64_t Backoff(int64_t doublings, const Limits& limits) {
  int64_t wait_ms = limits.backoff_base_ms;
  for (int64_t i = 0; i < doublings && wait_ms < limits.backoff_max_ms; ++i) wait_ms *= 2;
  return std::min(wait_ms, limits.backoff_max_ms);
}

Decision Charged(const Job& job, const Limits& limits) {
  Decision decision{.charged = true, .counted = true};
  if (job.charged_ends + 1 >= limits.max_ends_without_commit) {
    decision.next = Next::kFail;
    decision.reason = "NO_PROGRESS";
    return decision;
  }
  decision.wait_ms = job.ends_in_a_row == 0
                         ? std::min(limits.backoff_first_ms, limits.backoff_max_ms)
                         : Backoff(job.ends_in_a_row - 1, limits);
  return decision;
}

}  // namespace

Decision AfterEnd(const Job& job, Cause cause, bool worker_drains, const Limits& limits) {
  switch (cause) {
    case Cause::kOk:
      return {.next = Next::kSucceed};
    case Cause::kBadPlan:
    case Cause::kData:
    case Cause::kNonFiniteLoss:
      return {.next = Next::kFail, .reason = Name(cause)};
    case Cause::kRankExit:
    case Cause::kOom:
    case Cause::kHang:
    case Cause::kCollectiveError:
    case Cause::kPrepareFailed:
    case Cause::kReportFailed:
      return Charged(job, limits);
    case Cause::kLaunchFailed:
    case Cause::kStorage:
      return {.counted = true, .wait_ms = Backoff(job.ends_in_a_row, limits)};
    case Cause::kStopped:
      return {.wait_ms = worker_drains ? 0 : limits.backoff_first_ms};
    case Cause::kNodeLost:
    case Cause::kFenced:
      return {};
  }
  return {.next = Next::kFail, .reason = Name(cause)};
}

}  // namespace tandem::core
