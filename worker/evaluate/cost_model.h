// Cost model: what a stage computes and keeps, from the model's shape and the plan alone.
//
// Useful floating-point operations, 2 per multiply-add, per token (method.md §11): what the method
// needs, whatever a kernel recomputes or masks away; so a rate in useful operations shows waste
// instead of hiding it. Softmaxes, norms and activations do not count. Bytes are those of one rank,
// without the program itself and what the allocator loses. Shapes: M layers, H query heads, K
// key/value heads, d head dimension, f map width, F features, w window, T tokens of a sequence.
// Pure arithmetic, any thread; cannot fail. Not a clock: seconds come from a measured rate
// (worker/rank/cost_estimate.h).
#pragma once

#include <cstdint>
#include <string>

#include "worker/model/model_config.h"
#include "worker/plan/plan.h"

namespace tandem {

struct CostShape {
  ModelConfig model;
  AttentionPlan attention;
  int64_t tokens = 0;  // T
};

// N of method.md §11: the projections of all layers.
double MatmulParameters(const ModelConfig& model);
// A and B of a finetune stage's targets, all layers.
double LoraParameters(const ModelConfig& model, const StagePlan& stage);
// F: 2f where the map has two halves.
double FeatureWidth(const AttentionPlan& attention);

// One token of a training step: forward, backward and the teacher, without the optimiser.
double StageFlops(const CostShape& shape, const StagePlan& stage);
// One token of a forward pass with logits in a component mode: softmax, hybrid, window_only,
// linear_only, sinks_only, none.
double ForwardFlops(const CostShape& shape, const std::string& mode);

// Forward passes added up: what an evaluation reads.
struct ForwardWork {
  double tokens = 0, flops = 0;
  void Add(const CostShape& shape, const std::string& mode, double more_tokens) {
    tokens += more_tokens;
    flops += more_tokens * ForwardFlops(shape, mode);
  }
};

// What a rank holds at the peak of a stage.
struct StageBytes {
  double weights = 0;      // the frozen base, embeddings included
  double parameters = 0;   // all that a conversion can train, fp32
  double optimiser = 0;    // gradients and Adam's two moments of what this stage trains
  double activations = 0;  // of one layer (transfer), of all layers and the LoRA merges (finetune)
  double logits = 0;       // one chunk of rows, where the stage makes logits
  double total() const { return weights + parameters + optimiser + activations + logits; }
};
StageBytes BytesOfStage(const CostShape& shape, const Plan& plan, const StagePlan& stage);
// Of an export with its check, for which the files are read back beside the model.
StageBytes BytesOfExport(const CostShape& shape, const Plan& plan);
// Of an evaluation whose groups hold `group_tokens` tokens.
StageBytes BytesOfEvaluation(const CostShape& shape, const Plan& plan, int64_t group_tokens);

}  // namespace tandem
