// EarlyStop (method.md §6.4): ends a finetune stage when a component has become worse than it was
// at the stage's start, and gives the parameters back as they were before that.
//
// The hybrid's own loss cannot see collapse: the linear branch decays while it still falls. So the
// loss of each component is measured every few steps, on the same sequences. All there is to know
// lies in tensors that the checkpoint holds: a resumed stage stops at the same step with the same
// bits. Measured losses are kept in fp32, so that a comparison means the same before and after a
// resume. Every rank makes the same calls and measures the same losses. Training thread only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/checkpoint/checkpoint.h"

namespace tandem {

struct ComponentLosses {
  double hybrid = 0, window_only = 0, linear_only = 0;
};

struct EarlyStopOptions {
  std::string component = "linear_only";  // hybrid, window_only, linear_only
  int64_t every = 25;                     // steps
  double slack = 0;                       // nats
  int64_t steps = 1;                      // of the stage
};

class EarlyStop {
 public:
  using Measure = std::function<ComponentLosses()>;
  // parameters: the live tensors; what they hold is saved and given back. measure looks at them.
  EarlyStop(const EarlyStopOptions& options, NamedTensors parameters, Measure measure);

  // Before the stage's first step; nothing to do for a stage that was resumed.
  void Start();
  // True: the stage is over, and the parameters are those of the last measurement that was good.
  bool AfterStep(int64_t steps_done);
  // For the checkpoint: "stop.curve", and the kept parameters as "stop.kept.NAME".
  NamedTensors State() const;
  // {"stage_index", "component", "step", "words", "curve"}: the report's early_stop.
  std::string ToJson(int64_t stage_index) const;

 private:
  struct Point {
    int64_t step;
    float hybrid, window_only, linear_only;
  };
  std::vector<Point> Points() const;
  float LossOf(const Point& point) const;
  bool IsGood(const Point& point, const Point& start) const;
  void Append(int64_t step);

  EarlyStopOptions options_;
  NamedTensors parameters_, kept_;
  Measure measure_;
  at::Tensor
      curve_;  // (measurements, 4) fp32: step, hybrid, window_only, linear_only; NaN: not yet
};

}  // namespace tandem
