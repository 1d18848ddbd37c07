// Finetuning (method.md §6.2, §6.3): next-token cross-entropy of the converted model, training LoRA
// and, when asked, feature maps and window factors; with scheduled window dropout (SSD).
//
// Packed text: every token is a label, B (T-1) targets per batch; with a mask the labels of the
// global batch, whichever rank has them. Gradients of all ranks are
// averaged, then clipped by their global norm. The window's dropout is linear_only where it is off
// (ssd.dropped_span: all).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "worker/comm/collective.h"
#include "worker/model/attention/form.h"
#include "worker/model/layer_backward.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/train/adamw.h"
#include "worker/train/schedule.h"
#include "worker/train/stage.h"
#include "worker/train/window_dropout.h"

namespace tandem {

struct FinetuneOptions {
  std::string mode = "hybrid";  // hybrid, linear_only
  AttentionForm attention;
  LearningRateSchedule schedule;
  bool train_maps = false;
  bool train_factor = false;  // window factors; mode hybrid alone has them
  double clip_norm = 1.0;  // 0: no clipping
  WindowDropoutOptions dropout;
  uint64_t seed = 0;
  int64_t stage_index = 0;
};

class Finetune final : public TrainingStage {
 public:
  // All references outlive the stage.
  Finetune(const Llama& model, const Parameters& parameters, Collective& collective,
           const FinetuneOptions& options);

  StepReport Step(int64_t step, const StepBatch& batch) override;
  std::map<std::string, at::Tensor> State() const override;

  // Mean loss over all ranks and its gradients, without an update. is_dropped(sample, layer) says
  // where the window is off.
  using DropoutRule = std::function<bool(int64_t sample, int64_t layer_index)>;
  double LossAndGradients(const StepBatch& batch, const DropoutRule& is_dropped,
                          GradientMap& gradients);

 private:
  // Attention of a layer whose window is off in the sequences `dropped`.
  at::Tensor AttendRows(const AttentionInputs& in, int64_t layer_index,
                        const std::vector<bool>& dropped) const;
  DropoutRule RuleAt(int64_t step) const;
  // All ranks must bring the same names to the sum: a window factor whose window is off in all of
  // this rank's sequences, but not in another's, brings zeros. Off everywhere: no gradient, no
  // update.
  void FillFactorGradients(const StepBatch& batch, const DropoutRule& is_dropped,
                           GradientMap& gradients) const;

  const Llama& model_;
  const Parameters& parameters_;
  Collective& collective_;
  FinetuneOptions options_;
  WindowDropout dropout_;
  AdamW optimiser_;
};

}  // namespace tandem
