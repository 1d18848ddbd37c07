#include "worker/evaluate/token_mean.h"

#include <cmath>

#include "base/status.h"

namespace tandem {

double TokenMean(const std::vector<double>& means, const std::vector<double>& targets) {
  TANDEM_CHECK(!means.empty() && means.size() == targets.size());
  double sum = 0, count = 0;
  for (size_t i = 0; i < means.size(); ++i) {
    sum += targets[i] * means[i];
    count += targets[i];
  }
  return sum / count;
}

double TokenMeanError(const std::vector<double>& means, const std::vector<double>& targets) {
  const double mean = TokenMean(means, targets);
  double squares = 0, count = 0;
  for (size_t i = 0; i < means.size(); ++i) {
    const double excess = targets[i] * (means[i] - mean);  // sums to 0
    squares += excess * excess;
    count += targets[i];
  }
  const auto sequences = static_cast<double>(means.size());
  return std::sqrt(squares * sequences / (sequences - 1)) / count;
}

}  // namespace tandem
