#include "worker/train/window_dropout.h"

#include "worker/train/schedule.h"

namespace tandem {

WindowDropout::WindowDropout(uint64_t seed, int64_t stage_index,
                             const WindowDropoutOptions& options)
    : stream_(seed, stage_index, RandomPurpose::kWindowDropout), options_(options) {}

bool WindowDropout::IsDropped(int64_t step, int64_t sample, int64_t layer_index) const {
  const double chance = WindowDropoutAt(options_.schedule, step, options_.steps);
  if (chance <= 0.0) return false;
  const bool by_layer = options_.granularity == "layer", by_row = options_.granularity == "row";
  return stream_.Uniform(step, by_row ? sample : 0, by_layer ? layer_index : 0) < chance;
}

}  // namespace tandem
