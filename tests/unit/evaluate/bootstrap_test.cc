#include "worker/evaluate/bootstrap.h"

#include <gtest/gtest.h>

#include <cmath>

#include "worker/data/philox.h"

namespace tandem {
namespace {

// 64 numbers, about normal, mean 1 and standard deviation .5.
std::vector<double> Sample(int64_t stage) {
  const PhiloxStream stream(1, stage, RandomPurpose::kTest);
  std::vector<double> values;
  for (int64_t i = 0; i < 64; ++i) {
    double sum = -6;
    for (int64_t k = 0; k < 12; ++k) sum += stream.Uniform(i, k);
    values.push_back(1 + 0.5 * sum);
  }
  return values;
}

Interval Equal(const std::vector<double>& differences, int64_t draws, uint64_t seed) {
  return BootstrapInterval(differences, std::vector<double>(differences.size(), 31), draws, seed);
}

TEST(Bootstrap, IntervalIsThatOfTheMean) {
  const Interval interval = Equal(Sample(0), 2000, 3);
  double mean = 0, variance = 0;
  for (const double value : Sample(0)) mean += value / 64;
  for (const double value : Sample(0)) variance += (value - mean) * (value - mean) / 63;
  const double half = 1.96 * std::sqrt(variance / 64);
  EXPECT_NEAR(interval.low, mean - half, 0.15 * half);
  EXPECT_NEAR(interval.high, mean + half, 0.15 * half);
}

TEST(Bootstrap, CoversTheTruthAboutNineteenTimesOfTwenty) {
  int covered = 0;
  for (int64_t stage = 0; stage < 200; ++stage) {
    const Interval interval = Equal(Sample(stage), 300, 5);
    covered += interval.low <= 1 && 1 <= interval.high;
  }
  EXPECT_GT(covered, 177);  // 190 expected, standard deviation 3.1
  EXPECT_LT(covered, 200);
}

// Two texts of one loss each: the long one's counts by its length.
TEST(Bootstrap, SequencesCountByTheirTargets) {
  const Interval interval = BootstrapInterval({0, 1, 1, 1}, {97, 1, 1, 1}, 1000, 3);
  EXPECT_LT(interval.low, 0.02);
  const Interval equal = BootstrapInterval({0, 1, 1, 1}, {1, 1, 1, 1}, 1000, 3);
  EXPECT_EQ(equal.low, 0.25);
  EXPECT_EQ(BootstrapInterval({2, 2, 2}, {1, 5, 9}, 10, 0).high, 2);
}

TEST(Bootstrap, IsAFunctionOfItsSeed) {
  const Interval a = Equal(Sample(0), 100, 3), b = Equal(Sample(0), 100, 3);
  EXPECT_EQ(a.low, b.low);
  EXPECT_NE(a.low, Equal(Sample(0), 100, 4).low);
  const Interval equal = Equal({2, 2, 2}, 10, 0);
  EXPECT_EQ(equal.low, 2);
  EXPECT_EQ(equal.high, 2);
  EXPECT_TRUE(std::isnan(Equal({1, NAN}, 10, 0).low));
}

}  // namespace
}  // namespace tandem
