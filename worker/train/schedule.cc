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

namespace {

// step * n / steps in integers: the same on every machine.
size_t PartAt(size_t parts, int64_t step, int64_t steps) {
  const auto n = static_cast<int64_t>(parts);
  return static_cast<size_t>(std::min(step * n / std::max<int64_t>(1, steps), n - 1));
}

}  // namespace

double WindowDropoutAt(const std::vector<double>& schedule, int64_t step, int64_t steps) {
  return schedule.empty() ? 0.0 : schedule[PartAt(schedule.size(), step, steps)];
}

int64_t WindowSizeAt(const std::vector<int64_t>& schedule, int64_t step, int64_t steps,
                     int64_t otherwise) {
  return schedule.empty() ? otherwise : schedule[PartAt(schedule.size(), step, steps)];
}

}  // namespace tandem
