// Attention transfer (method.md §6.1): every layer's feature maps learn to imitate the teacher's
// softmax attention, layer by layer, on the teacher's own hidden states.
//
// One layer is taught and stepped before the next is looked at: memory of one layer, one optimiser
// per layer, no clipping. The last layer's output projection and MLP, the final norm and the LM
// head are never run. With early stop (layer_stop.h) a layer that no longer learns is passed by the
// teacher alone, and layers behind the last that learns are not run.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/comm/collective.h"
#include "worker/model/attention/form.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/train/adamw.h"
#include "worker/train/document_spans.h"
#include "worker/train/layer_stop.h"
#include "worker/train/layer_teacher.h"
#include "worker/train/schedule.h"
#include "worker/train/stage.h"

namespace tandem {

// The text on which layers are watched, in groups of a few sequences; the same on every rank.
struct WatchedGroups {
  int64_t count = 0;
  std::function<StepBatch(int64_t group)> read;
};

struct AttentionTransferOptions {
  // weights, outputs, hybrid_outputs, hybrid_weights, mixture
  std::string objective = "weights";
  TransferObjective mixture;  // what each loss counts in the objective mixture
  AttentionForm attention;
  LearningRateSchedule schedule;
  LayerStopOptions stop;
  WatchedGroups watched;  // with stop.patience: at least one group
};

class AttentionTransfer final : public TrainingStage {
 public:
  // All references outlive the stage.
  AttentionTransfer(const Llama& model, const Parameters& parameters, Collective& collective,
                    const AttentionTransferOptions& options);

  StepReport Step(int64_t step, const StepBatch& batch) override;
  void Rehearse(const StepBatch& batch) override;
  std::map<std::string, at::Tensor> State() const override;

  // Losses per layer and gradients of their mean over layers and ranks, without an update: what
  // Step is made of, for parity tests.
  std::vector<double> LossesAndGradients(const StepBatch& batch,
                                         std::map<std::string, at::Tensor>& gradients);

 private:
  // What is done with a layer: fills y_BHTd, the teacher's output, and returns a figure.
  using Visit = std::function<double(int64_t layer_index, const at::Tensor& x_BTD,
                                     const std::vector<DocumentSpan>& spans, at::Tensor& y_BHTd)>;
  // Visits the first `layers` layers in order; their figures.
  std::vector<double> VisitLayers(const StepBatch& batch, int64_t layers, const Visit& visit) const;
  // Means of the figures over the watched sequences of all ranks, the same for any number of ranks.
  std::vector<double> OverWatchedText(int64_t layers, const Visit& visit) const;
  double SumOverRanks(double value) const;

  // Loss and gradients of one layer over all ranks.
  double TeachLayer(int64_t layer_index, const at::Tensor& x_BTD,
                    const std::vector<DocumentSpan>& spans, LayerTeacher::Gradients& gradients,
                    at::Tensor& y_BHTd) const;
  // And the update.
  double StepLayer(int64_t layer_index, const at::Tensor& x_BTD,
                   const std::vector<DocumentSpan>& spans, int64_t step, at::Tensor& y_BHTd);

  bool HasStopped(int64_t layer) const { return stop_ && stop_->HasStopped(layer); }
  // Hands the losses on the watched text to stop_; the stage's last step tells what came of it.
  void Watch(int64_t steps_done, StepReport* report);
  // KL(teacher || student) of the kept parameters on the watched text.
  std::vector<double> WatchedDivergences() const;

  const Llama& model_;
  const Parameters& parameters_;
  Collective& collective_;
  AttentionTransferOptions options_;
  LayerTeacher teacher_;
  std::vector<AdamW> optimisers_;  // by layer
  std::optional<LayerStop> stop_;
};

}  // namespace tandem
