#include "worker/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tandem {

double LearningRateSchedule::At(int64_t step) const {
  if (constant) return peak;
  if (step < warmup_steps) {
    return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  }
  const int64_t decay_steps = std::max<int64_t>(1, steps - warmup_steps);
  const double progress =
      static_cast<double>(step - warmup_steps) / static_cast<double>(decay_steps);
  return 0.5 * peak * (1.0 + std::cos(std::numbers::pi * std::min(progress, 1.0)));
}

double WindowDropoutAt(const std::vector<double>& schedule, int64_t step, int64_t steps) {
  if (schedule.empty()) return 0.0;
  const int64_t n = static_cast<int64_t>(schedule.size());
  // step * n / steps in integers: the same on every machine.
  const int64_t index = std::min(step * n / std::max<int64_t>(1, steps), n - 1);
  return schedule[static_cast<size_t>(index)];
}

}  // namespace tandem
