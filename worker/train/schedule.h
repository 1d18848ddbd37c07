// Schedules: what changes with the step and is a pure function of it.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

// Warm-up from peak/warmup_steps to peak, then cosine to 0 at `steps` (method.md §6.5). `constant`
// holds the peak from the first step: parity with a trainer that has no schedule.
struct LearningRateSchedule {
  double peak = 0;
  int64_t warmup_steps = 0;
  int64_t steps = 1;
  bool constant = false;
  // For step 0 ... steps-1.
  double At(int64_t step) const;
};

// The chance that the window is off at `step` of `steps`: schedule[min(floor(a n), n-1)], a =
// step/steps (method.md §6.3); 0 for an empty schedule.
double WindowDropoutAt(const std::vector<double>& schedule, int64_t step, int64_t steps);

// The window's size at `step` of `steps`, by the same rule; `otherwise` for an empty schedule.
int64_t WindowSizeAt(const std::vector<int64_t>& schedule, int64_t step, int64_t steps,
                     int64_t otherwise);

}  // namespace tandem
