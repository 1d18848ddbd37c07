// Sampler: which chunk of which source a training step reads. Stateless (method.md §7): the cursor
// is the step.
//
// n = step * batch_size + b. With one source of N chunks: data_pass = n / N, chunk = pi(n mod N),
// where pi is a permutation of 0..N-1 keyed by (seed, data_pass). So every chunk is read once per
// pass, in an order that does not depend on the number of ranks, and resuming needs only the step.
// pi is a Feistel network with Philox rounds, walked until it lands below N.
//
// Several sources take turns in proportion to their weights: of the first n sequences, source 0
// reads floor(n w_0 / (w_0 + ... + w_last)); the others share the rest in the same way. So any
// stretch of training holds the weights to within one sequence per source, exactly and without a
// draw, and each source goes through its own passes. Weights are rounded to 2^-32 of the rest.
// Immutable: any thread.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

struct SourceShare {
  int64_t num_chunks = 0;  // >= 1
  double weight = 1;       // > 0
};

struct ChunkPlace {
  int64_t source = 0, chunk = 0;
  bool operator==(const ChunkPlace&) const = default;
};

class Sampler {
 public:
  // At least one source; batch_size >= 1.
  Sampler(uint64_t seed, int64_t stage_index, const std::vector<SourceShare>& sources,
          int64_t batch_size);
  // Place of sequence b (0 <= b < batch_size) of the global batch of `step` (>= 0).
  ChunkPlace PlaceAt(int64_t step, int64_t b) const;
  // The places of one rank: sequences rank*batch_size/ranks ... of the global batch. batch_size is
  // a multiple of ranks.
  std::vector<ChunkPlace> PlacesOfRank(int64_t step, int64_t rank, int64_t ranks) const;

 private:
  struct Turn {
    int64_t num_chunks = 0;
    uint64_t share = 0;  // of what the sources before leave, in 2^-32
  };
  uint64_t seed_;
  int64_t stage_index_;
  int64_t batch_size_;
  std::vector<Turn> turns_;
};

// pi of the pass, for tests: a bijection of 0..size-1.
int64_t PermuteIndex(uint64_t seed, int64_t stage_index, int64_t data_pass, int64_t size,
                     int64_t index);

}  // namespace tandem
