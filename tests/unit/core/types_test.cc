#include "coordinator/core/types.h"

#include <gtest/gtest.h>

#include <set>

namespace tandem::core {
namespace {

TEST(Names, CausesRoundTrip) {
  std::set<std::string> names;
  for (int i = 0; i < kNumCauses; ++i) {
    const Cause cause = static_cast<Cause>(i);
    EXPECT_EQ(CauseFromName(Name(cause)), cause);
    names.insert(Name(cause));
  }
  EXPECT_EQ(names.size(), size_t{kNumCauses});
  EXPECT_STREQ(Name(Cause::kNonFiniteLoss), "NONFINITE_LOSS");
  EXPECT_STREQ(Name(Cause::kNodeLost), "NODE_LOST");
}

TEST(Names, AnUnknownCauseIsAFailure) {
  EXPECT_EQ(CauseFromName("SOMETHING_NEWER"), Cause::kRankExit);
}

TEST(Names, StatesRoundTrip) {
  for (int i = 0; i < kNumJobStates; ++i) {
    JobState state = JobState::kFailed;
    ASSERT_TRUE(JobStateFromName(Name(static_cast<JobState>(i)), &state));
    EXPECT_EQ(state, static_cast<JobState>(i));
  }
  AttemptState attempt = AttemptState::kNone;
  ASSERT_TRUE(AttemptStateFromName("DRAINING", &attempt));
  EXPECT_EQ(attempt, AttemptState::kDraining);
  EXPECT_FALSE(AttemptStateFromName("", &attempt));
}

}  // namespace
}  // namespace tandem::core
