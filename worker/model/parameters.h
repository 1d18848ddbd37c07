// Parameters: everything a conversion trains, by name; fp32, on one device.
//
// Feature maps, window factors and LoRA, named as in checkpoints and parity vectors:
//   layers.L.feature_map_q, .feature_map_k (H,d,f), tied (K,d,f); where maps have a bias,
//   .feature_map_q_bias, .feature_map_k_bias (H,f), tied (K,f), of relu maps (H), (K);
//   layers.L.window_factor (H), the number before its activation; layers.L.{q,k,v,o}_proj.lora_A
//   (r,in), .lora_B (out,r)
// The start is method.md §2: identity maps, gamma = mixing_initial, B = 0. A is zero until
// worker/train/lora_start.h draws it (§6.2): randomness is no business of the model's. The map of
// names never changes after construction, tensors keep their memory: whoever holds one sees every
// update. Confined to the training thread while it trains.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/model/attention/form.h"
#include "worker/model/model_config.h"

namespace tandem {

struct LoraOptions {
  int64_t rank = 0;  // 0: no LoRA parameters at all
  double alpha = 16;
  std::vector<std::string> targets;  // of q_proj, k_proj, v_proj, o_proj
};

struct ParameterOptions {
  int64_t feature_dim = 64;
  FeatureMapKind feature_map = FeatureMapKind::kHedgehog;
  bool feature_map_bias = false;
  bool tie_kv_heads = false;              // one k map per KV head
  std::string mixing_factor = "sigmoid";  // sigmoid, exp
  double mixing_initial = 0.1;
  LoraOptions lora;
};

// y += scale * x A^T B^T; undefined tensors: no LoRA on this projection.
struct LoraPair {
  at::Tensor a, b;
  double scale = 0;
  bool defined() const { return a.defined(); }
};

// One layer's trainable tensors, sharing memory with the map.
struct LayerParameters {
  at::Tensor feature_map_q, feature_map_k, window_factor;
  at::Tensor feature_map_q_bias, feature_map_k_bias;  // undefined: the maps have none
  LoraPair q, k, v, o;
};

class Parameters {
 public:
  Parameters(const ModelConfig& config, const ParameterOptions& options,
             at::Device device = at::kCPU);

  // Ordered by name.
  const std::map<std::string, at::Tensor>& tensors() const { return tensors_; }
  const ParameterOptions& options() const { return options_; }
  int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  const LayerParameters& layer(int64_t layer_index) const {
    return layers_[static_cast<size_t>(layer_index)];
  }
  bool has_lora() const { return options_.lora.rank > 0; }
  // alpha / r, what B A is multiplied by; 0 without LoRA.
  double lora_scale() const;
  // The window factors after their activation, (H); differentiable where window_factor is.
  at::Tensor Gamma(int64_t layer_index) const;

 private:
  void Add(const std::string& name, at::Tensor value) { tensors_[name] = std::move(value); }
  void AddLayer(const ModelConfig& config, int64_t layer_index);
  LoraPair AddLora(const ModelConfig& config, int64_t layer_index, const std::string& target);

  ParameterOptions options_;
  at::Device device_;
  std::map<std::string, at::Tensor> tensors_;
  std::vector<LayerParameters> layers_;
};

}  // namespace tandem
