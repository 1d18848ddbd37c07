#include <gtest/gtest.h>

#include "worker/comm/collective.h"

namespace tandem {
namespace {

TEST(SoloCollective, IsOneRankWhoseSumsAreItsOwn) {
  const auto solo = MakeSoloCollective();
  EXPECT_EQ(solo->rank(), 0);
  EXPECT_EQ(solo->size(), 1);
  std::vector<float> values = {1, 2};
  solo->AllReduceSum(std::span<float>(values));
  EXPECT_EQ(values, (std::vector<float>{1, 2}));
  EXPECT_EQ(solo->AllGather(std::vector<double>{3, 4}), (std::vector<double>{3, 4}));
  EXPECT_EQ(solo->Broadcast("text", 0), "text");
}

// As over MPI: a request is acted on one call later, so that callers cannot depend on less.
TEST(SoloCollective, AgreesOnTheRequestOfThePreviousCall) {
  const auto solo = MakeSoloCollective();
  EXPECT_EQ(solo->Agree(2), 0);
  EXPECT_EQ(solo->Agree(0), 2);
  EXPECT_EQ(solo->Agree(0), 0);
}

}  // namespace
}  // namespace tandem
