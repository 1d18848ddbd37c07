#include "worker/data/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "worker/data/philox.h"

namespace tandem {
namespace {

constexpr uint64_t kWhole = uint64_t{1} << 32;
constexpr int kPassBits = 40;  // passes of different sources have permutations of their own

// floor(n share / 2^32), exactly.
int64_t ShareOf(int64_t n, uint64_t share) {
  const auto wide = static_cast<uint64_t>(n);
  return static_cast<int64_t>((wide >> 32) * share + ((wide & (kWhole - 1)) * share >> 32));
}

}  // namespace

int64_t PermuteIndex(uint64_t seed, int64_t stage_index, int64_t data_pass, int64_t size,
                     int64_t index) {
  TANDEM_CHECK(size >= 1 && index >= 0 && index < size);
  int half_bits = 1;
  while (half_bits < 31 && (int64_t{1} << (2 * half_bits)) < size) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  const PhiloxStream stream(seed, stage_index, RandomPurpose::kSampler);
  uint64_t value = static_cast<uint64_t>(index);
  do {  // cycle walking: a bijection of 2^(2 half_bits) numbers, repeated until it lands inside
    uint64_t left = value >> half_bits, right = value & mask;
    for (int round = 0; round < 6; ++round) {
      const PhiloxWords words = stream.Words(data_pass, static_cast<int64_t>(right), round);
      const uint64_t next = (left ^ words[0]) & mask;
      left = right;
      right = next;
    }
    value = left << half_bits | right;
  } while (value >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(value);
}

Sampler::Sampler(uint64_t seed, int64_t stage_index, const std::vector<SourceShare>& sources,
                 int64_t batch_size)
    : seed_(seed), stage_index_(stage_index), batch_size_(batch_size) {
  TANDEM_CHECK(!sources.empty() && batch_size >= 1);
  double rest = 0;
  for (const SourceShare& source : sources) {
    TANDEM_CHECK(source.num_chunks >= 1 && source.weight > 0);
    rest += source.weight;
  }
  for (const SourceShare& source : sources) {
    const double share = std::clamp(source.weight / rest, 0.0, 1.0);
    turns_.push_back({source.num_chunks, static_cast<uint64_t>(std::llround(share * 0x1p32))});
    rest -= source.weight;
  }
  turns_.back().share = kWhole;
}

ChunkPlace Sampler::PlaceAt(int64_t step, int64_t b) const {
  TANDEM_CHECK(step >= 0 && b >= 0 && b < batch_size_);
  int64_t n = step * batch_size_ + b;
  int64_t source = 0;
  for (;; ++source) {
    const uint64_t share = turns_[static_cast<size_t>(source)].share;
    const int64_t taken = ShareOf(n, share);
    if (ShareOf(n + 1, share) > taken) {
      n = taken;
      break;
    }
    n -= taken;
  }
  const int64_t num_chunks = turns_[static_cast<size_t>(source)].num_chunks;
  const int64_t data_pass = n / num_chunks + (source << kPassBits);
  return {source, PermuteIndex(seed_, stage_index_, data_pass, num_chunks, n % num_chunks)};
}

std::vector<ChunkPlace> Sampler::PlacesOfRank(int64_t step, int64_t rank, int64_t ranks) const {
  TANDEM_CHECK(ranks >= 1 && rank >= 0 && rank < ranks && batch_size_ % ranks == 0);
  const int64_t each = batch_size_ / ranks;
  std::vector<ChunkPlace> places;
  for (int64_t b = rank * each; b < (rank + 1) * each; ++b) places.push_back(PlaceAt(step, b));
  return places;
}

}  // namespace tandem
