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
  const Sampler sampler(11, 1, {{24, 1}}, 4);
  std::vector<int64_t> first, second;
  for (int64_t step = 0; step < 12; ++step) {
    for (int64_t b = 0; b < 4; ++b) {
      const ChunkPlace place = sampler.PlaceAt(step, b);
      EXPECT_EQ(place.source, 0);
      (step < 6 ? first : second).push_back(place.chunk);
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
  const Sampler sampler(0, 0, {{1000, 1}, {50, 0.3}}, 8);
  for (const int64_t ranks : {1, 2, 4, 8}) {
    std::vector<ChunkPlace> joined;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const auto part = sampler.PlacesOfRank(5, rank, ranks);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(joined == sampler.PlacesOfRank(5, 0, 1)) << ranks;
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

// Of any first n sequences each source has its share to within one, and goes through its own
// permutation pass by pass.
TEST(Sampler, SourcesTakeTurnsInProportionToTheirWeights) {
  const std::vector<SourceShare> sources = {{7, 5}, {1000, 2.5}, {30, 0.5}, {3, 2}};
  const Sampler sampler(3, 1, sources, 8);
  std::vector<std::vector<int64_t>> read(sources.size());
  for (int64_t n = 0; n < 4000; ++n) {
    const ChunkPlace place = sampler.PlaceAt(n / 8, n % 8);
    read[static_cast<size_t>(place.source)].push_back(place.chunk);
    for (size_t s = 0; s < sources.size(); ++s) {
      const double wanted = static_cast<double>(n + 1) * sources[s].weight / 10;
      // A source after others has their roundings too.
      ASSERT_NEAR(static_cast<double>(read[s].size()), wanted, 1.0 + static_cast<double>(s))
          << "source " << s << " of the first " << n + 1;
    }
  }
  for (size_t s = 0; s < sources.size(); ++s) {
    const auto N = static_cast<size_t>(sources[s].num_chunks);
    for (size_t pass = 0; (pass + 1) * N <= read[s].size(); ++pass) {
      const auto begin = read[s].begin() + static_cast<std::ptrdiff_t>(pass * N);
      const std::set<int64_t> seen(begin, begin + static_cast<std::ptrdiff_t>(N));
      ASSERT_EQ(seen.size(), N) << "source " << s << ", pass " << pass;
    }
  }
}

TEST(Sampler, SourcesOfOneSizeAreReadInDifferentOrders) {
  const Sampler sampler(3, 1, {{40, 1}, {40, 1}}, 2);
  std::vector<int64_t> first, second;
  for (int64_t step = 0; step < 40; ++step) {
    for (const ChunkPlace& place : sampler.PlacesOfRank(step, 0, 1)) {
      (place.source == 0 ? first : second).push_back(place.chunk);
    }
  }
  EXPECT_EQ(first.size(), second.size());
  EXPECT_NE(first, second);
}

// The order of a single source is part of the reproducible result: it must not change.
TEST(Sampler, OneSourceReadsThePermutationOfTheStage) {
  const Sampler sampler(5, 2, {{17, 0.25}}, 3);
  for (int64_t n = 0; n < 60; ++n) {
    EXPECT_EQ(sampler.PlaceAt(n / 3, n % 3).chunk, PermuteIndex(5, 2, n / 17, 17, n % 17));
  }
}

TEST(Sampler, FarStepsAreExact) {
  const Sampler sampler(0, 0, {{1000, 1}, {1000, 2}}, 1);
  const int64_t far = int64_t{1} << 50;
  int64_t of_first = 0;
  for (int64_t n = far; n < far + 3000; ++n) of_first += sampler.PlaceAt(n, 0).source == 0 ? 1 : 0;
  EXPECT_NEAR(static_cast<double>(of_first), 1000, 1);
}

}  // namespace
}  // namespace tandem
