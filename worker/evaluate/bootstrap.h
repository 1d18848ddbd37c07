// The paired bootstrap: how sure a difference is, over the sequences that were measured.
//
// Pure arithmetic; any thread. Draws are Philox's: a function of the seed.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

struct Interval {
  double low = 0, high = 0;
};

// 95 % interval of the token mean (token_mean.h) of paired differences: percentiles of `draws`
// resamplings of the sequences (method.md §8). Of each sequence its difference and its targets, at
// least one sequence; draws >= 1. A difference that is not finite makes both ends NaN.
Interval BootstrapInterval(const std::vector<double>& differences,
                           const std::vector<double>& targets, int64_t draws, uint64_t seed);

}  // namespace tandem
