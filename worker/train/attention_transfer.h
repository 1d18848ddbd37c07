// Attention transfer (method.md §6.1): every layer's feature maps learn to imitate the teacher's
// softmax attention, layer by layer, on the teacher's own hidden states.
//
// One layer is taught and stepped before the next is looked at: memory of one layer, one optimiser
// per layer, no clipping. The last layer's output projection and MLP, the final norm and the LM
// head are never run.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/comm/collective.h"
#include "worker/model/attention/form.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/train/adamw.h"
#include "worker/train/document_spans.h"
#include "worker/train/schedule.h"
#include "worker/train/stage.h"

namespace tandem {

struct AttentionTransferOptions {
  // weights, outputs, hybrid_outputs, hybrid_weights, mixture
  std::string objective = "weights";
  TransferObjective mixture;  // what each loss counts in the objective mixture
  AttentionForm attention;
  LearningRateSchedule schedule;
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
  // Loss of one layer over all ranks; fills gradients by name. y_BHTd receives the teacher's
  // output. With spans (document_spans.h) teacher and student attend within each of them.
  double TeachLayer(int64_t layer_index, const at::Tensor& x_BTD,
                    const std::vector<DocumentSpan>& spans,
                    std::map<std::string, at::Tensor>& gradients, at::Tensor& y_BHTd);
  // The same of one span, which counts as `share` of the batch; adds to gradients.
  double TeachSpan(int64_t layer_index, const QkvTensors& in, double share,
                   std::map<std::string, at::Tensor>& gradients, at::Tensor& y_BHTd);
  // -sum p* ln p* of the layer's softmax attention, the mean over rows and converted heads of all
  // ranks; one more pass of softmax.
  double TeacherEntropy(int64_t layer_index, const at::Tensor& x_BTD,
                        const std::vector<DocumentSpan>& spans) const;

  const Llama& model_;
  const Parameters& parameters_;
  Collective& collective_;
  AttentionTransferOptions options_;
  std::vector<AdamW> optimisers_;  // by layer
};

}  // namespace tandem
