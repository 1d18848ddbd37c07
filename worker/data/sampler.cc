#include "worker/data/sampler.h"

#include "base/status.h"
#include "worker/data/philox.h"

namespace tandem {

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

Sampler::Sampler(uint64_t seed, int64_t stage_index, int64_t num_chunks, int64_t batch_size)
    : seed_(seed), stage_index_(stage_index), num_chunks_(num_chunks), batch_size_(batch_size) {
  TANDEM_CHECK(num_chunks >= 1 && batch_size >= 1);
}

int64_t Sampler::ChunkAt(int64_t step, int64_t b) const {
  TANDEM_CHECK(step >= 0 && b >= 0 && b < batch_size_);
  const int64_t n = step * batch_size_ + b;
  return PermuteIndex(seed_, stage_index_, n / num_chunks_, num_chunks_, n % num_chunks_);
}

std::vector<int64_t> Sampler::ChunksOfRank(int64_t step, int64_t rank, int64_t ranks) const {
  TANDEM_CHECK(ranks >= 1 && rank >= 0 && rank < ranks && batch_size_ % ranks == 0);
  const int64_t share = batch_size_ / ranks;
  std::vector<int64_t> chunks;
  for (int64_t b = rank * share; b < (rank + 1) * share; ++b) chunks.push_back(ChunkAt(step, b));
  return chunks;
}

}  // namespace tandem
