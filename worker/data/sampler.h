// Sampler: which chunk a training step reads. Stateless (method.md §7): the cursor is the step.
//
// n = step * batch_size + b; data_pass = n / N; chunk = pi(n mod N), where pi is a permutation of
// 0..N-1 keyed by (seed, data_pass). So every chunk is read once per pass, in an order that does
// not depend on the number of ranks, and resuming needs only the step. pi is a Feistel network with
// Philox rounds, walked until it lands below N. Immutable: any thread.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

class Sampler {
 public:
  // num_chunks >= 1, batch_size >= 1.
  Sampler(uint64_t seed, int64_t stage_index, int64_t num_chunks, int64_t batch_size);
  // Chunk of sequence b (0 <= b < batch_size) of the global batch of `step` (>= 0).
  int64_t ChunkAt(int64_t step, int64_t b) const;
  // The chunks of one rank: sequences rank*batch_size/ranks ... of the global batch. batch_size is
  // a multiple of ranks.
  std::vector<int64_t> ChunksOfRank(int64_t step, int64_t rank, int64_t ranks) const;
  int64_t num_chunks() const { return num_chunks_; }

 private:
  uint64_t seed_;
  int64_t stage_index_;
  int64_t num_chunks_;
  int64_t batch_size_;
};

// pi of the pass, for tests: a bijection of 0..size-1.
int64_t PermuteIndex(uint64_t seed, int64_t stage_index, int64_t data_pass, int64_t size,
                     int64_t index);

}  // namespace tandem
