// Requeue: what becomes of a job when its attempt has ended. A pure table, so that it can be read
// and tested as one.
//
//   cause                                            charged  wait before the next attempt
//   OK                                               -        the job has succeeded
//   BAD_PLAN DATA NONFINITE_LOSS                     -        the job has failed: it would end the
//   same way again RANK_EXIT OOM HANG COLLECTIVE_ERROR PREPARE_FAILED REPORT_FAILED yes
//   backoff_first, then backoff_base doubling to backoff_max LAUNCH_FAILED STORAGE no backoff_base
//   doubling to backoff_max STOPPED                                          no       none if its
//   worker drains, else backoff_first NODE_LOST FENCED                                 no none
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
