#include "worker/data/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace tandem {
namespace {

// Random123 1.14, kat_vectors, "philox4x32 10".
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxWords{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxWords{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxWords{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryArgumentCounts) {
  std::set<PhiloxWords> seen;
  int draws = 0;
  for (uint64_t seed : {0u, 1u}) {
    for (int64_t stage : {0, 1}) {
      for (RandomPurpose purpose : {RandomPurpose::kSampler, RandomPurpose::kBootstrap}) {
        const PhiloxStream stream(seed, stage, purpose);
        for (int64_t step : {int64_t{0}, int64_t{1}, int64_t{1} << 40}) {
          for (int64_t sample : {0, 1}) {
            for (int64_t layer : {0, 1}) {
              seen.insert(stream.Words(step, sample, layer));
              ++draws;
            }
          }
        }
      }
    }
  }
  EXPECT_EQ(static_cast<int>(seen.size()), draws);
}

TEST(Philox, UniformAndBelowStayInside) {
  const PhiloxStream stream(7, 0, RandomPurpose::kTest);
  double sum = 0;
  int counts[6] = {};
  const int n = 60000;
  for (int i = 0; i < n; ++i) {
    const double u = stream.Uniform(i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    const int64_t k = stream.Below(6, i);
    ASSERT_GE(k, 0);
    ASSERT_LT(k, 6);
    ++counts[k];
  }
  EXPECT_NEAR(sum / n, 0.5, 4 * 0.2887 / 244.9);                 // four standard errors
  for (int count : counts) EXPECT_NEAR(count, n / 6, 4 * 91.3);  // four of a binomial's
  EXPECT_EQ(stream.Below(1, 3), 0);
}

}  // namespace
}  // namespace tandem
