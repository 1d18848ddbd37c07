#include "worker/evaluate/cost_model.h"

#include <algorithm>

namespace tandem {
namespace {

constexpr double kMultiplyAdd = 2;

double MeanOr(double otherwise, const std::vector<double>& values) {
  if (values.empty()) return otherwise;
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// The sizes of method.md §11 as real numbers.
struct Sizes {
  explicit Sizes(const CostShape& shape)
      : M(static_cast<double>(shape.model.num_layers)),
        D(static_cast<double>(shape.model.hidden_size)),
        I(static_cast<double>(shape.model.intermediate_size)),
        H(static_cast<double>(shape.model.num_heads)),
        K(static_cast<double>(shape.model.num_kv_heads)),
        d(static_cast<double>(shape.model.head_dim)),
        V(static_cast<double>(shape.model.vocab_size)),
        f(static_cast<double>(shape.attention.feature_dim)),
        T(static_cast<double>(shape.tokens)) {
    F = FeatureWidth(shape.attention);
    key_maps = shape.attention.tie_kv_heads ? K : H;
    const auto chosen = static_cast<int64_t>(shape.attention.retained.size());
    const int64_t retained = chosen > 0 ? chosen : shape.attention.retain_auto;
    converted = 1 - std::min(1.0, static_cast<double>(retained) / (M * K));
  }
  double M, D, I, H, K, d, V, f, T;
  double F = 0, key_maps = 0;
  double converted = 1;  // share of the heads that do not stay softmax
};

// Keys of a row's softmax set; never more than a causal row has on average.
double SoftmaxKeys(const CostShape& shape, double window) {
  const bool terraced = shape.attention.window_kind == "terraced";
  const double keys = terraced ? 1.5 * window + 0.5 : window;
  return std::min(keys + static_cast<double>(shape.attention.window_sinks),
                  0.5 * (static_cast<double>(shape.tokens) + 1));
}

// Per token and layer, all heads; the rows of the table in method.md §11.
class LayerFlops {
 public:
  LayerFlops(const CostShape& shape, double window)
      : s_(shape), window_keys_(SoftmaxKeys(shape, window)) {}

  double Teacher() const { return 2 * s_.H * s_.d * (s_.T + 1); }
  // Of q and k: the product forward; its dW and dx cost the same each.
  double Maps() const { return kMultiplyAdd * (s_.H + s_.key_maps) * s_.d * s_.f; }
  double Linear() const { return 4 * s_.H * s_.F * s_.d; }
  double Window() const { return 4 * s_.H * window_keys_ * s_.d; }
  double Quadratic() const { return 3 * s_.H * s_.F * (s_.T + 1); }
  double Core(const std::string& mode) const {
    if (mode == "softmax") return Teacher();
    if (mode == "window_only") return Window();
    if (mode == "linear_only") return Linear();
    return mode == "hybrid" ? Linear() + Window() : 0;
  }
  // dφ and dγ without a softmax backward: stage 1.
  double MapsOnlyBackward() const { return 6 * s_.H * s_.F * s_.d; }

 private:
  const Sizes s_;
  const double window_keys_;
};

bool ReadsMaps(const std::string& mode) {
  return mode == "hybrid" || mode == "linear_only";
}

double LayerParametersOf(const Sizes& s) {
  return s.D * (s.H + 2 * s.K) * s.d + s.H * s.d * s.D + 3 * s.D * s.I;
}

// Forward and backward of the student in one layer, by the objective's word.
double TransferFlops(const LayerFlops& layer, const StagePlan& stage, const std::string& word) {
  const double outputs = layer.Linear() + layer.MapsOnlyBackward();
  if (word == "weights") return layer.Quadratic();
  if (word == "outputs") return outputs;
  if (word == "hybrid_outputs") return outputs + layer.Window();
  if (word == "hybrid_weights") return layer.Quadratic() + layer.Window() / 2;  // scores alone
  double sum = 0;
  if (stage.mixture_weights > 0) sum += TransferFlops(layer, stage, "weights");
  if (stage.mixture_outputs > 0) sum += TransferFlops(layer, stage, "outputs");
  if (stage.mixture_hybrid_outputs > 0) sum += TransferFlops(layer, stage, "hybrid_outputs");
  return sum;
}

double TransferStage(const CostShape& shape, const StagePlan& stage) {
  const Sizes s(shape);
  const LayerFlops layer(shape, static_cast<double>(shape.attention.window_size));
  const double student = 2 * layer.Maps() + TransferFlops(layer, stage, stage.objective);
  const double last = s.H * s.d * s.D + 3 * s.D * s.I;  // W_o and MLP that are never run
  return kMultiplyAdd * (MatmulParameters(shape.model) - last) +
         s.M * (layer.Teacher() + s.converted * student);
}

double FinetuneStage(const CostShape& shape, const StagePlan& stage) {
  const Sizes s(shape);
  const std::vector<double> windows(stage.ssd_window_schedule.begin(),
                                    stage.ssd_window_schedule.end());
  const LayerFlops layer(shape, MeanOr(static_cast<double>(shape.attention.window_size), windows));
  const double dropped = MeanOr(0, stage.ssd_schedule);
  const double core = (1 - dropped) * layer.Core(stage.mode) + dropped * layer.Linear();
  const double products = stage.train_maps ? 3 : 2;  // forward, dx, and dW where maps train
  const double maps = ReadsMaps(stage.mode) ? products * layer.Maps() : 0;
  const double attention =
      s.converted * (maps + 3 * core) + (1 - s.converted) * 3 * layer.Teacher();
  const double model = MatmulParameters(shape.model) + s.V * s.D;
  const double first_dx = kMultiplyAdd * s.D * (s.H + 2 * s.K) * s.d;  // nobody needs layer 0's
  const double teacher =
      stage.loss == "next_token" ? 0 : kMultiplyAdd * model + s.M * layer.Teacher();
  return 2 * kMultiplyAdd * model - first_dx + s.M * attention +
         3 * kMultiplyAdd * LoraParameters(shape.model, stage) + teacher;
}

}  // namespace

double MatmulParameters(const ModelConfig& model) {
  const Sizes s({model, {}, 1});
  return s.M * LayerParametersOf(s);
}

double LoraParameters(const ModelConfig& model, const StagePlan& stage) {
  const Sizes s({model, {}, 1});
  double count = 0;
  for (const std::string& target : stage.lora_targets) {
    const double heads = target == "k_proj" || target == "v_proj" ? s.K : s.H;
    count += static_cast<double>(stage.lora_rank) * (s.D + heads * s.d);
  }
  return s.M * count;
}

double FeatureWidth(const AttentionPlan& attention) {
  const auto f = static_cast<double>(attention.feature_dim);
  return attention.feature_map_two_sided ? 2 * f : f;
}

double StageFlops(const CostShape& shape, const StagePlan& stage) {
  return stage.kind == "attention_transfer" ? TransferStage(shape, stage)
                                            : FinetuneStage(shape, stage);
}

double ForwardFlops(const CostShape& shape, const std::string& mode) {
  const Sizes s(shape);
  const LayerFlops layer(shape, static_cast<double>(shape.attention.window_size));
  const double maps = ReadsMaps(mode) ? layer.Maps() : 0;
  const double retained = mode == "sinks_only" || mode == "none" ? 0 : layer.Teacher();
  return kMultiplyAdd * (MatmulParameters(shape.model) + s.V * s.D) +
         s.M * (s.converted * (maps + layer.Core(mode)) + (1 - s.converted) * retained);
}

}  // namespace tandem
