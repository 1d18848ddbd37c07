#include "worker/evaluate/bootstrap.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "worker/data/philox.h"

namespace tandem {
namespace {

// The value below which a share of the sorted numbers lies, between neighbours by straight lines.
double Percentile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double weight = at - static_cast<double>(below);
  return (1 - weight) * sorted[below] + weight * sorted[above];
}

}  // namespace

Interval BootstrapInterval(const std::vector<double>& differences,
                           const std::vector<double>& targets, int64_t draws, uint64_t seed) {
  TANDEM_CHECK(!differences.empty() && differences.size() == targets.size() && draws >= 1);
  for (const double difference : differences) {
    if (!std::isfinite(difference)) return {NAN, NAN};
  }
  const PhiloxStream stream(seed, 0, RandomPurpose::kBootstrap);
  const auto count = static_cast<int64_t>(differences.size());
  std::vector<double> means;
  for (int64_t draw = 0; draw < draws; ++draw) {
    double sum = 0, tokens = 0;
    for (int64_t i = 0; i < count; ++i) {
      const auto drawn = static_cast<size_t>(stream.Below(count, draw, i));
      sum += targets[drawn] * differences[drawn];
      tokens += targets[drawn];
    }
    means.push_back(sum / tokens);
  }
  std::sort(means.begin(), means.end());
  return {Percentile(means, 0.025), Percentile(means, 0.975)};
}

}  // namespace tandem
