// Finetuning (method.md §6.2, §6.3): next-token cross-entropy of the converted model, distillation
// from the base (distillation.h), or a mixture; training LoRA and, when asked, feature maps and
// window factors; with scheduled window dropout (SSD) and window sizes.
//
// Packed text: every token is a label, B (T-1) targets per batch, unless the batch has a mask.
// Gradients of all ranks are averaged, then clipped by their global norm.
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
#include "worker/model/next_token_loss.h"
#include "worker/model/parameters.h"
#include "worker/train/adamw.h"
#include "worker/train/document_spans.h"
#include "worker/train/schedule.h"
#include "worker/train/stage.h"
#include "worker/train/window_dropout.h"

namespace tandem {

struct FinetuneOptions {
  std::string mode = "hybrid";           // hybrid, linear_only, window_only
  std::string objective = "next_token";  // next_token, distill, mixture
  double distill_weight = 0.5;           // of distill in mixture; next_token counts the rest
  AttentionForm attention;
  LearningRateSchedule schedule;
  bool train_maps = false;
  bool train_factor = false;  // window factors; mode hybrid alone has them
  double clip_norm = 1.0;     // 0: no clipping
  WindowDropoutOptions dropout;
  std::string dropped_span = "all";      // where the window is off: all (linear_only), outside
  std::vector<int64_t> window_schedule;  // sizes over equal parts; empty: attention.window
  uint64_t seed = 0;
  int64_t stage_index = 0;
};

class Finetune final : public TrainingStage {
 public:
  // All references outlive the stage.
  Finetune(const Llama& model, const Parameters& parameters, Collective& collective,
           const FinetuneOptions& options);

  StepReport Step(int64_t step, const StepBatch& batch) override;
  void Rehearse(const StepBatch& batch) override;
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
  // Span by span with a document mask.
  at::Tensor AttendDocuments(const AttentionInputs& in, int64_t layer_index,
                             const std::vector<bool>& dropped,
                             const std::vector<DocumentSpan>& spans) const;
  DropoutRule RuleAt(int64_t step) const;
  // The loss at the top and its gradient, of this rank's sequences; x is the last hidden state.
  NextTokenGradient LossAtTop(const StepBatch& batch, const at::Tensor& x, double targets) const;
  // All ranks must bring the same names to the sum: a window factor whose window is off in all of
  // this rank's sequences, but not in another's, brings zeros. Off everywhere: no gradient, no
  // update.
  void FillFactorGradients(const StepBatch& batch, const DropoutRule& is_dropped,
                           GradientMap& gradients) const;

  const Llama& model_;
  const Parameters& parameters_;
  Collective& collective_;
  FinetuneOptions options_;
  AttentionForm form_;  // of the current step
  WindowDropout dropout_;
  AdamW optimiser_;
};

}  // namespace tandem
