// LayerStop (method.md §6.1, stop per layer): which layers of an attention transfer still learn,
// and the best that each has learned.
//
// Layers are taught apart, so each ends by itself. Every few steps their losses on validation text
// are handed in. A loss that is lower than at the last gain by at least `min_gain` of it is a gain;
// after `patience` measurements in a row without one the layer stops. A loss that is not a number
// is no gain. Whatever a layer's end, it keeps the parameters of its lowest loss, the start's
// included. All there is to know lies in tensors that the checkpoint holds: a resumed stage stops
// at the same steps with the same bits. Every rank makes the same calls with the same losses.
// Training thread only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace tandem {

struct LayerStopOptions {
  int64_t patience = 0;  // measurements; 0: no layer stops, nothing is measured
  int64_t every = 25;    // steps
  double min_gain = 0.001;
  int64_t steps = 1;  // of the stage
};

class LayerStop {
 public:
  using Tensors = std::map<std::string, at::Tensor>;
  // trained: each layer's live tensors; what they hold is saved and given back.
  LayerStop(const LayerStopOptions& options, std::vector<Tensors> trained);

  // Before the first step, every few, and after the last.
  bool IsDue(int64_t steps_done) const;
  // One loss per layer; those of stopped layers are not read. Afterwards a layer that has stopped,
  // and after the stage's last step every layer, holds the parameters of its lowest loss.
  void Add(int64_t steps_done, const std::vector<double>& losses);

  bool HasStopped(int64_t layer) const;
  // Layers up to the last that learns: 0 when all have stopped.
  int64_t NumLearning() const;
  // Infinite before the first measurement.
  double LowestLoss(int64_t layer) const;

  // "stop.layers", and the kept parameters as "stop.kept.NAME", sharing memory.
  void AddState(Tensors& state) const;
  // {"patience", "every_steps", "min_gain", "layers": [{"loss", "kept_step", "stopped_at" (null: it
  // ran to the end)}]}
  std::string ToJson() const;

 private:
  struct Layer {
    double lowest, kept_step;  // of the kept parameters
    double last_gain, idle;    // the loss at the last gain, measurements since
    double stopped_at;         // step; < 0: it learns
  };
  Layer& At(int64_t layer) const;

  LayerStopOptions options_;
  std::vector<Tensors> trained_, kept_;
  at::Tensor layers_;  // (M, 5) float64, a row is a Layer
};

}  // namespace tandem
