// Scheduled sliding-window dropout (method.md §6.3): where the softmax window is off.
//
// Draws are counter-based (seed, stage; step, sample, layer): the same for any number of ranks and
// after a resume. Immutable: any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/data/philox.h"

namespace tandem {

struct WindowDropoutOptions {
  std::vector<double> schedule;             // empty: never off
  std::string granularity = "micro_batch";  // micro_batch, layer, row
  int64_t steps = 1;
};

class WindowDropout {
 public:
  WindowDropout(uint64_t seed, int64_t stage_index, const WindowDropoutOptions& options);
  // Is the window off for this sequence (its number in the global batch) in this layer?
  // micro_batch: one draw for all of a step; layer: one per layer; row: one per sequence.
  bool IsDropped(int64_t step, int64_t sample, int64_t layer_index) const;

 private:
  PhiloxStream stream_;
  WindowDropoutOptions options_;
};

}  // namespace tandem
