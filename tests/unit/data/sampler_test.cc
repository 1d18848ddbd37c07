#include "worker/data/sampler.h"

#include <gtest/gtest.h>

#include <set>

namespace tandem {
namespace {

TEST(Sampler, PermutationIsABijection) {
  for (const int64_t size : {1, 2, 3, 5, 16, 17, 100, 1000, 4097}) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < size; ++i) {
      const int64_t p = PermuteIndex(3, 0, 0, size, i);
      ASSERT_GE(p, 0);
      ASSERT_LT(p, size);
      seen.insert(p);
    }
    EXPECT_EQ(static_cast<int64_t>(seen.size()), size);
  }
}

TEST(Sampler, ReadsEachChunkOncePerPassInAnotherOrder) {
  const Sampler sampler(11, 1, 24, 4);
  std::vector<int64_t> first, second;
  for (int64_t step = 0; step < 12; ++step) {
    for (int64_t b = 0; b < 4; ++b) {
      (step < 6 ? first : second).push_back(sampler.ChunkAt(step, b));
    }
  }
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 24u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 24u);
  EXPECT_NE(first, second);
  std::vector<int64_t> in_order(24);
  for (size_t i = 0; i < 24; ++i) in_order[i] = static_cast<int64_t>(i);
  EXPECT_NE(first, in_order);
}

TEST(Sampler, RanksShareTheGlobalBatchWhateverTheirNumber) {
  const Sampler sampler(0, 0, 1000, 8);
  for (const int64_t ranks : {1, 2, 4, 8}) {
    std::vector<int64_t> joined;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const auto part = sampler.ChunksOfRank(5, rank, ranks);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_EQ(joined, sampler.ChunksOfRank(5, 0, 1)) << ranks;
  }
}

TEST(Sampler, SeedAndStageChangeTheOrder) {
  std::vector<int64_t> a, b, c;
  for (int64_t i = 0; i < 50; ++i) {
    a.push_back(PermuteIndex(1, 0, 0, 50, i));
    b.push_back(PermuteIndex(2, 0, 0, 50, i));
    c.push_back(PermuteIndex(1, 1, 0, 50, i));
  }
  EXPECT_NE(a, b);
  EXPECT_NE(a, c);
}

}  // namespace
}  // namespace tandem
