// TrainingStage: one stage of a conversion that takes optimiser steps.
//
// Driven from outside, step by step, with the ids of this rank's sequences: data, checkpoints and
// events are the pipeline's business. Every rank makes the same calls; all ranks hold the same
// parameters, bit for bit, after each step. Confined to the training thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace tandem {

// A loss or gradient that is not a number. What made it was not applied: finetuning updates nothing
// in this step, attention transfer only the layers before the one that failed. The last checkpoint
// stands; not retried (exit code 16).
class NonFiniteLoss : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// This rank's part of a step's batch.
struct StepBatch {
  at::Tensor ids_BT;         // int64
  int64_t first_sample = 0;  // number of its first sequence in the global batch
  // (B,T) uint8, 1: the token is a label, predicted from those before it. Undefined: all are, in
  // the batches of all ranks.
  at::Tensor label_mask_BT = {};
  // With data.document_mask: where documents begin within each of its sequences, without their own
  // beginnings (document_spans.h). Empty: attention sees the whole sequence.
  std::vector<std::vector<int64_t>> document_starts = {};
};

// All over the global batch.
struct StepReport {
  double loss = 0;
  std::vector<double> layer_losses;  // attention transfer; NaN: the layer has stopped
  // Attention transfer by weights, in the stage's last step: KL(teacher || student) of the
  // attention weights per layer, the loss without the teacher's entropy, which is its floor. With
  // early stop, of the kept parameters on the watched text.
  std::vector<double> layer_divergences;
  // Attention transfer with early stop: no layer learns any more, this step was the stage's last.
  bool finished = false;
  std::string layer_stops;  // then, or in the stage's last step: LayerStop::ToJson
  double learning_rate = 0;
  double grad_norm = 0;       // finetune, before clipping
  double window_dropped = 0;  // finetune: share of (sequence, layer) pairs without a window
};

class TrainingStage {
 public:
  virtual ~TrainingStage() = default;
  // Steps count from 0 within the stage; any order of calls is deterministic in (state, step, ids).
  virtual StepReport Step(int64_t step, const StepBatch& batch) = 0;
  // All of a first step but the update: what it costs, before it is paid.
  virtual void Rehearse(const StepBatch& batch) = 0;
  // Everything that a resume needs: all parameters, and the optimiser's moments by the names of
  // AdamW. The tensors share memory with the live ones.
  virtual std::map<std::string, at::Tensor> State() const = 0;
};

}  // namespace tandem
