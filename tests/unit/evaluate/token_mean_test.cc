#include "worker/evaluate/token_mean.h"

#include <gtest/gtest.h>

#include <cmath>

#include "worker/data/philox.h"

namespace tandem {
namespace {

TEST(TokenMean, EveryTokenCountsOnce) {
  EXPECT_DOUBLE_EQ(TokenMean({1, 2, 4}, {10, 5, 1}), (10 + 10 + 4) / 16.0);
  EXPECT_DOUBLE_EQ(TokenMean({1, 2, 4}, {3, 3, 3}), 7 / 3.0);
}

TEST(TokenMean, EqualTargetsHaveTheUsualError) {
  // Variance of 1, 2, 4 is 7/3.
  EXPECT_DOUBLE_EQ(TokenMeanError({1, 2, 4}, {31, 31, 31}), std::sqrt(7 / 3.0 / 3));
}

// Against what it estimates: the spread of the mean over many texts of 50 sequences, whose losses
// depend on their lengths.
TEST(TokenMean, TheErrorIsTheSpreadOverTexts) {
  constexpr int64_t kTexts = 400, kSequences = 50;
  double sum = 0, squares = 0, told = 0;
  for (int64_t text = 0; text < kTexts; ++text) {
    const PhiloxStream stream(2, text, RandomPurpose::kTest);
    std::vector<double> means, targets;
    for (int64_t i = 0; i < kSequences; ++i) {
      targets.push_back(static_cast<double>(1 + stream.Below(100, i, 0)));
      means.push_back(2 + targets.back() / 100 + stream.Uniform(i, 1));
    }
    const double mean = TokenMean(means, targets);
    sum += mean / kTexts;
    squares += mean * mean / kTexts;
    told += TokenMeanError(means, targets) / kTexts;
  }
  const double spread = std::sqrt(squares - sum * sum);
  EXPECT_NEAR(told, spread, 0.1 * spread);  // 400 texts know a spread to 3.5 %
}

}  // namespace
}  // namespace tandem
