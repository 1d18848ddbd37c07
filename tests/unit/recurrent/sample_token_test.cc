#include "worker/rank/sample_token.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

namespace tandem::testing {
namespace {

const std::vector<float> kLogits = {1.0f, 3.0f, 3.0f, -2.0f, 2.0f};

int64_t Sampled(const Sampling& sampling, int64_t number) {
  return SampleToken(kLogits.data(), 5, sampling, number);
}

TEST(SampleToken, ColdIsTheFirstOfTheLargest) {
  EXPECT_EQ(Sampled({0, 1, 7}, 0), 1);
  EXPECT_EQ(Sampled({0, 0.1, 8}, 3), 1);
}

TEST(SampleToken, TheSameSeedAndNumberDrawTheSame) {
  const Sampling warm{1, 1, 42};
  bool differs = false;
  for (int64_t n = 0; n < 50; ++n) {
    EXPECT_EQ(Sampled(warm, n), Sampled(warm, n));
    differs = differs || Sampled(warm, n) != Sampled({1, 1, 43}, n);
  }
  EXPECT_TRUE(differs);
}

TEST(SampleToken, DrawsByProbability) {
  const double temperature = 0.7;
  std::map<int64_t, double> share;
  constexpr int64_t kDraws = 20'000;
  for (int64_t n = 0; n < kDraws; ++n) share[Sampled({temperature, 1, 1}, n)] += 1.0 / kDraws;
  double sum = 0;
  for (const float logit : kLogits) sum += std::exp(logit / temperature);
  for (int64_t id = 0; id < 5; ++id) {
    const double wanted = std::exp(kLogits[static_cast<size_t>(id)] / temperature) / sum;
    // Six standard deviations.
    EXPECT_NEAR(share[id], wanted, 6 * std::sqrt(wanted * (1 - wanted) / kDraws) + 1e-4) << id;
  }
}

TEST(SampleToken, TheNucleusIsTheFewestLikelyTokensThatHoldTopP) {
  const auto ids = [](double top_p) {
    std::vector<int64_t> found;
    double sum = 0;
    for (const Candidate& c : Nucleus(kLogits.data(), 5, {1, top_p, 0})) {
      found.push_back(c.id);
      sum += c.probability;
    }
    EXPECT_NEAR(sum, 1, 1e-12);
    return found;
  };
  EXPECT_EQ(ids(1e-9), (std::vector<int64_t>{1}));
  EXPECT_EQ(ids(0.5), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(ids(0.9), (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(ids(1), (std::vector<int64_t>{1, 2, 4, 0, 3}));
  for (int64_t n = 0; n < 200; ++n) EXPECT_NE(Sampled({1, 0.9, 3}, n), 3);
}

}  // namespace
}  // namespace tandem::testing
