// Means over the sequences that were measured, and the paired bootstrap: how sure a difference is.
//
// Pure arithmetic; any thread. Draws are Philox's: a function of the seed.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

// `losses` is not empty.
double MeanLoss(const std::vector<double>& losses);

struct Interval {
  double low = 0, high = 0;
};

// 95 % interval of the mean of paired differences: percentiles of `draws` resamplings of the
// sequences (method.md §8). differences is not empty; draws >= 1. One that is not finite makes both
// ends NaN.
Interval BootstrapInterval(const std::vector<double>& differences, int64_t draws, uint64_t seed);

}  // namespace tandem
