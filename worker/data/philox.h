// Philox 4x32-10: the counter-based generator behind every random draw of a training run.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC11),
// Random123's known answers. A draw is a pure function of (seed, stage, purpose) and (step, sample,
// layer): resume is exact, and nothing depends on the number of ranks or on who draws first.
// Stateless: any thread. Cannot fail. Not for secrets.
#pragma once

#include <array>
#include <cstdint>

namespace tandem {

using PhiloxWords = std::array<uint32_t, 4>;

// The raw function: ten rounds over a 128-bit counter with a 64-bit key.
PhiloxWords Philox4x32(PhiloxWords counter, std::array<uint32_t, 2> key);

// What a draw is for: streams of different purposes never meet. Numbers are part of the
// reproducible result: never reuse.
enum class RandomPurpose : uint32_t {
  kSampler = 1,        // permutation of chunks
  kWindowDropout = 2,  // SSD
  kLoraInit = 3,
  kBootstrap = 4,
  kTest = 5,
  kInduction = 6,  // random tokens that retained heads are chosen on
  kGeneration = 9,
};

// Draws of one (seed, stage, purpose).
class PhiloxStream {
 public:
  PhiloxStream(uint64_t seed, int64_t stage_index, RandomPurpose purpose);
  // Four words for (step, sample, layer); sample and layer below 2^32.
  PhiloxWords Words(int64_t step, int64_t sample = 0, int64_t layer = 0) const;
  // The first word as a number in [0, 1): multiples of 2^-32.
  double Uniform(int64_t step, int64_t sample = 0, int64_t layer = 0) const;
  // In [0, bound), bound >= 1, from two words: bias below bound / 2^64.
  int64_t Below(int64_t bound, int64_t step, int64_t sample = 0, int64_t layer = 0) const;

 private:
  std::array<uint32_t, 2> key_;
};

}  // namespace tandem
