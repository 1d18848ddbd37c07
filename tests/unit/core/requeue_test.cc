#include "coordinator/core/requeue.h"

#include <gtest/gtest.h>

namespace tandem::core {
namespace {

constexpr Cause kChargedCauses[] = {Cause::kRankExit,      Cause::kOom,
                                    Cause::kHang,          Cause::kCollectiveError,
                                    Cause::kPrepareFailed, Cause::kReportFailed};

TEST(Requeue, TheFirstCrashIsRetriedSoon) {
  const Limits limits;
  for (const Cause cause : kChargedCauses) {
    const Decision decision = AfterEnd(Job{}, cause, false, limits);
    EXPECT_EQ(decision.next, Next::kRetry) << Name(cause);
    EXPECT_TRUE(decision.charged) << Name(cause);
    EXPECT_LE(decision.wait_ms, 1'000) << Name(cause);
    EXPECT_GT(decision.wait_ms, 0) << Name(cause);
  }
}

TEST(Requeue, BackoffDoublesUpToItsLimit) {
  Limits limits;
  limits.max_ends_without_commit = 1'000;
  Job job;
  std::vector<int64_t> waits;
  for (job.ends_in_a_row = 0; job.ends_in_a_row < 12; ++job.ends_in_a_row) {
    waits.push_back(AfterEnd(job, Cause::kRankExit, false, limits).wait_ms);
  }
  const std::vector<int64_t> expected = {500,     5'000,   10'000,  20'000,  40'000,  80'000,
                                         160'000, 320'000, 600'000, 600'000, 600'000, 600'000};
  EXPECT_EQ(waits, expected);
}

TEST(Requeue, ThirdChargedEndWithoutProgressFails) {
  Job job;
  job.charged_ends = 2;
  for (const Cause cause : kChargedCauses) {
    const Decision decision = AfterEnd(job, cause, false, Limits{});
    EXPECT_EQ(decision.next, Next::kFail) << Name(cause);
    EXPECT_EQ(decision.reason, "NO_PROGRESS");
  }
}

TEST(Requeue, WhatTheJobDidNotCauseIsNeverCharged) {
  Job job;
  job.charged_ends = 2;
  for (const Cause cause :
       {Cause::kLaunchFailed, Cause::kStorage, Cause::kStopped, Cause::kNodeLost, Cause::kFenced}) {
    const Decision decision = AfterEnd(job, cause, true, Limits{});
    EXPECT_EQ(decision.next, Next::kRetry) << Name(cause);
    EXPECT_FALSE(decision.charged) << Name(cause);
  }
  EXPECT_EQ(AfterEnd(job, Cause::kNodeLost, false, Limits{}).wait_ms, 0);
  EXPECT_EQ(AfterEnd(job, Cause::kStopped, true, Limits{}).wait_ms, 0);
  EXPECT_GT(AfterEnd(job, Cause::kStopped, false, Limits{}).wait_ms, 0);
}

TEST(Requeue, WhatWouldEndTheSameWayFailsAtOnce) {
  for (const Cause cause : {Cause::kBadPlan, Cause::kData, Cause::kNonFiniteLoss}) {
    const Decision decision = AfterEnd(Job{}, cause, false, Limits{});
    EXPECT_EQ(decision.next, Next::kFail);
    EXPECT_EQ(decision.reason, Name(cause));
  }
  EXPECT_EQ(AfterEnd(Job{}, Cause::kOk, false, Limits{}).next, Next::kSucceed);
}

}  // namespace
}  // namespace tandem::core
