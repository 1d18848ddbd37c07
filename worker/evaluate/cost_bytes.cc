// The cost model's memory: what a rank holds at the peak of a stage. The terms follow the code that
// allocates them: worker/model/layer_backward.h (the tape), worker/model/llama.cc, kernels/cpu
// (scratch per thread), worker/train/adamw.h.
#include <algorithm>

#include "worker/evaluate/cost_model.h"
#include "worker/model/logit_rows.h"

namespace tandem {
namespace {

constexpr double kFloat = 4;

double Real(int64_t value) {
  return static_cast<double>(value);
}

double BaseElementBytes(const Plan& plan) {
  return plan.base_dtype == "bfloat16" ? 2 : kFloat;
}

bool HasTarget(const StagePlan& stage, const std::string& target) {
  return std::find(stage.lora_targets.begin(), stage.lora_targets.end(), target) !=
         stage.lora_targets.end();
}

double WeightBytes(const ModelConfig& model, const Plan& plan) {
  const double embeddings =
      (model.tie_word_embeddings ? 1 : 2) * Real(model.vocab_size) * Real(model.hidden_size);
  return (MatmulParameters(model) + embeddings) * BaseElementBytes(plan);
}

double MapParameters(const CostShape& shape) {
  const ModelConfig& m = shape.model;
  const double key_maps = Real(shape.attention.tie_kv_heads ? m.num_kv_heads : m.num_heads);
  return Real(m.num_layers) * (Real(m.num_heads) + key_maps) * Real(m.head_dim) *
         Real(shape.attention.feature_dim);
}

// LoRA is there in every stage of a plan that finetunes; all its stages agree on it.
double AllParameters(const CostShape& shape, const Plan& plan) {
  for (const StagePlan& stage : plan.stages) {
    if (stage.kind != "finetune") continue;
    return MapParameters(shape) + LoraParameters(shape.model, stage);
  }
  return MapParameters(shape);
}

struct TokenFloats {
  explicit TokenFloats(const ModelConfig& m)
      : D(Real(m.hidden_size)),
        I(Real(m.intermediate_size)),
        query(Real(m.num_heads * m.head_dim)),
        qkv(Real((m.num_heads + 2 * m.num_kv_heads) * m.head_dim)) {}
  double D, I, query, qkv;
  // The hidden state, its norm, q k v and y; or the middle, its norm, the MLP and the result.
  double OneLayer() const { return std::max(2 * D + qkv + query, 4 * D + query + 3 * I); }
  // What layer_backward.h keeps of a layer, and what its backward makes on top.
  double Tape() const { return 2 * D + qkv + 2 * query + 2 * I; }
  double OneBackward() const { return 4 * D + 2 * I + 3 * query + qkv; }
};

// Tiles of a (sequence, head) pair, once per thread.
double ScratchBytes(const CostShape& shape, const Plan& plan) {
  const double d = Real(shape.model.head_dim), F = FeatureWidth(shape.attention);
  return Real(plan.threads_per_rank) * Real(shape.tokens) * 4 * (d + F) * kFloat;
}

// Merged weights W + scale B A stay on the tape of every layer; on a bf16 base none are merged
// (worker/model/lora_projection.h).
double MergeBytes(const CostShape& shape, const Plan& plan, const StagePlan& stage) {
  if (plan.base_dtype == "bfloat16") return 0;
  const TokenFloats floats(shape.model);
  const bool merges_qkv =
      HasTarget(stage, "q_proj") || HasTarget(stage, "k_proj") || HasTarget(stage, "v_proj");
  const double elements =
      (merges_qkv ? floats.qkv : 0) + (HasTarget(stage, "o_proj") ? floats.query : 0);
  return Real(shape.model.num_layers) * elements * floats.D * kFloat;
}

double LogitBytes(const CostShape& shape, double tokens, double rows, double copies) {
  return copies * std::min(rows, tokens) * Real(shape.model.vocab_size) * kFloat;
}

// Of the cross-entropy.
double LossRows(const CostShape& shape, const Plan& plan) {
  return Real(LogitRows(plan.device == "cpu", shape.model.vocab_size));
}

}  // namespace

StageBytes BytesOfStage(const CostShape& shape, const Plan& plan, const StagePlan& stage) {
  const TokenFloats floats(shape.model);
  const double tokens = Real(stage.batch_size / plan.ranks) * Real(shape.tokens);
  const double all = AllParameters(shape, plan), maps = MapParameters(shape);
  const bool is_finetune = stage.kind == "finetune";
  const double trained = is_finetune ? all - (stage.train_maps ? 0 : maps) : maps;
  const bool keeps_best = is_finetune && stage.stop_component != "none";
  StageBytes bytes;
  bytes.weights = WeightBytes(shape.model, plan);
  bytes.parameters = all * kFloat * (keeps_best ? 2 : 1);
  bytes.optimiser = 3 * trained * kFloat;
  bytes.activations = ScratchBytes(shape, plan);
  if (!is_finetune) {
    // Maps' gradients come per sequence before they are summed.
    const double gradients =
        Real(stage.batch_size / plan.ranks) * maps / Real(shape.model.num_layers);
    bytes.activations += (tokens * floats.OneLayer() + gradients) * kFloat;
    return bytes;
  }
  const double layers = Real(shape.model.num_layers);
  bytes.activations += tokens * (layers * floats.Tape() + floats.OneBackward()) * kFloat +
                       MergeBytes(shape, plan, stage);
  bytes.logits = LogitBytes(shape, tokens, LossRows(shape, plan), 1);
  // Both models' logits, their probabilities and the gradient.
  const double distilled = LogitBytes(shape, tokens, Real(kLossChunkRows), 4);
  if (stage.loss == "distill") bytes.logits = distilled;
  if (stage.loss == "mixture") bytes.logits = std::max(bytes.logits, distilled);
  return bytes;
}

StageBytes BytesOfEvaluation(const CostShape& shape, const Plan& plan, int64_t group_tokens) {
  StageBytes bytes;
  bytes.weights = WeightBytes(shape.model, plan);
  bytes.parameters = AllParameters(shape, plan) * kFloat;
  bytes.activations =
      ScratchBytes(shape, plan) + Real(group_tokens) * TokenFloats(shape.model).OneLayer() * kFloat;
  bytes.logits = LogitBytes(shape, Real(group_tokens), LossRows(shape, plan), 1);
  return bytes;
}

// The check's model is in fp32, its files are mapped meanwhile.
StageBytes BytesOfExport(const CostShape& shape, const Plan& plan) {
  const double elements = WeightBytes(shape.model, plan) / BaseElementBytes(plan);
  StageBytes bytes;
  bytes.weights =
      elements * (BaseElementBytes(plan) + kFloat + (plan.export_dtype == "bfloat16" ? 2 : kFloat));
  bytes.parameters = (AllParameters(shape, plan) + MapParameters(shape)) * kFloat;
  return bytes;
}

}  // namespace tandem
