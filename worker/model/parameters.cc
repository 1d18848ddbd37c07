#include "worker/model/parameters.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace tandem {
namespace {

struct ProjectionShape {
  int64_t in, out;
};

ProjectionShape ShapeOf(const ModelConfig& config, const std::string& target) {
  const int64_t queries = config.num_heads * config.head_dim;
  if (target == "q_proj") return {config.hidden_size, queries};
  if (target == "o_proj") return {queries, config.hidden_size};
  TANDEM_CHECK_MSG(target == "k_proj" || target == "v_proj", "LoRA target " + target);
  return {config.hidden_size, config.num_kv_heads * config.head_dim};
}

double InitialTheta(const ParameterOptions& options) {
  const double gamma = options.mixing_initial;
  return options.mixing_factor == "exp" ? std::log(gamma) : std::log(gamma / (1.0 - gamma));
}

}  // namespace

Parameters::Parameters(const ModelConfig& config, const ParameterOptions& options,
                       at::Device device)
    : options_(options), device_(device) {
  layers_.resize(static_cast<size_t>(config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) AddLayer(config, layer);
}

void Parameters::AddLayer(const ModelConfig& config, int64_t layer_index) {
  const std::string prefix = "layers." + std::to_string(layer_index) + ".";
  const int64_t H = config.num_heads, d = config.head_dim, f = options_.feature_dim;
  LayerParameters& layer = layers_[static_cast<size_t>(layer_index)];
  layer.feature_map_q = at::eye(d, f, device_).unsqueeze(0).repeat({H, 1, 1});
  const int64_t k_maps = options_.tie_kv_heads ? config.num_kv_heads : H;
  layer.feature_map_k = layer.feature_map_q.narrow(0, 0, k_maps).clone();
  layer.window_factor = at::full({H}, InitialTheta(options_), device_);
  Add(prefix + "feature_map_q", layer.feature_map_q);
  Add(prefix + "feature_map_k", layer.feature_map_k);
  Add(prefix + "window_factor", layer.window_factor);
  if (options_.feature_map_bias) {
    // method.md §2: T2R's relu has one number per head; in a softmax that would cancel.
    const bool one_number = options_.feature_map == FeatureMapKind::kRelu;
    layer.feature_map_q_bias = one_number ? at::zeros({H}, device_) : at::zeros({H, f}, device_);
    layer.feature_map_k_bias = layer.feature_map_q_bias.narrow(0, 0, k_maps).clone();
    Add(prefix + "feature_map_q_bias", layer.feature_map_q_bias);
    Add(prefix + "feature_map_k_bias", layer.feature_map_k_bias);
  }
  layer.q = AddLora(config, layer_index, "q_proj");
  layer.k = AddLora(config, layer_index, "k_proj");
  layer.v = AddLora(config, layer_index, "v_proj");
  layer.o = AddLora(config, layer_index, "o_proj");
}

LoraPair Parameters::AddLora(const ModelConfig& config, int64_t layer_index,
                             const std::string& target) {
  const std::vector<std::string>& targets = options_.lora.targets;
  if (!has_lora() || std::find(targets.begin(), targets.end(), target) == targets.end()) return {};
  const ProjectionShape shape = ShapeOf(config, target);
  LoraPair pair{at::zeros({options_.lora.rank, shape.in}, device_),
                at::zeros({shape.out, options_.lora.rank}, device_), lora_scale()};
  const std::string prefix = "layers." + std::to_string(layer_index) + "." + target;
  Add(prefix + ".lora_A", pair.a);
  Add(prefix + ".lora_B", pair.b);
  return pair;
}

double Parameters::lora_scale() const {
  return has_lora() ? options_.lora.alpha / static_cast<double>(options_.lora.rank) : 0.0;
}

at::Tensor Parameters::Gamma(int64_t layer_index) const {
  return ActivateWindowFactor(layer(layer_index).window_factor, options_.mixing_factor);
}

}  // namespace tandem
