// Requeue: what becomes of a job when its attempt has ended. A pure table, so that it can be read
// and tested as one.
//
//   cause                       charged  what follows
//   OK                          -        SUCCEEDED
//   BAD_PLAN DATA               -        FAILED: it would end the same way again
//   NONFINITE_LOSS
//   RANK_EXIT OOM HANG          yes      again after backoff_first, then backoff_base, doubling
//   COLLECTIVE_ERROR                     to backoff_max
//   PREPARE_FAILED
//   REPORT_FAILED
//   LAUNCH_FAILED STORAGE       no       again after backoff_base, doubling to backoff_max
//   STOPPED                     no       again at once if its worker drains, else after
//                                        backoff_first
//   NODE_LOST FENCED            no       again at once
//
// Charged ends count since the last progress (a checkpoint or stage further than any before); with
// max_ends_without_commit of them the job has failed: NO_PROGRESS.
#pragma once

#include <cstdint>
#include <string>

#include "coordinator/core/state.h"

namespace tandem::core {

enum class Next { kSucceed, kFail, kRetry };

struct Decision {
  Next next = Next::kRetry;
  std::string reason = {};  // kFail: for Job.reason
  bool charged = false;     // count it in charged_ends
  bool counted = false;     // count it in ends_in_a_row
  int64_t wait_ms = 0;
};

// `job` as it was before the end is counted.
Decision AfterEnd(const Job& job, Cause cause, bool worker_drains, const Limits& limits);

}  // namespace tandem::core
