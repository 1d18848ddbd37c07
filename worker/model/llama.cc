#include "worker/model/llama.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/outer.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/model/base_product.h"
#include "worker/model/projection.h"
#include "worker/model/tensor_rows.h"

namespace tandem {
namespace {

at::ScalarType ScalarTypeOf(const std::string& dtype) {
  if (dtype == "BF16") return at::kBFloat16;
  if (dtype == "F16") return at::kHalf;
  TANDEM_CHECK_MSG(dtype == "F32", "CheckModelTensors let dtype " + dtype + " through");
  return at::kFloat;
}

// Foreign files may be unaligned, so bytes are copied before they are read as numbers.
at::Tensor CopyOut(const TensorView& view) {
  at::Tensor raw = at::empty(view.shape, at::TensorOptions(ScalarTypeOf(view.dtype)));
  std::memcpy(raw.data_ptr(), view.data, static_cast<size_t>(view.bytes));
  return raw;
}

// Where and in what type the model keeps a weight: matrices in the base's type, norms and biases
// in fp32. The same tensor when it is so already.
at::Tensor Placed(const at::Tensor& weight, const ComputeDevice& device) {
  return weight.to(device.device, weight.dim() > 1 ? device.base_type : at::kFloat);
}

std::string LayerPrefix(int64_t layer_index) {
  return "model.layers." + std::to_string(layer_index) + ".";
}

// Biases and the heads' norms, where the family has them.
void ReadFamilyWeights(const ModelConfig& config, const std::map<std::string, at::Tensor>& weights,
                       const std::string& prefix, LayerWeights& w) {
  const std::string a = prefix + "self_attn.", m = prefix + "mlp.";
  if (config.qkv_bias) {
    w.qkv_bias = at::cat({weights.at(a + "q_proj.bias"), weights.at(a + "k_proj.bias"),
                          weights.at(a + "v_proj.bias")});
  }
  if (config.output_bias) w.o_bias = weights.at(a + "o_proj.bias");
  if (config.mlp_bias) {
    w.gate_up_bias = at::cat({weights.at(m + "gate_proj.bias"), weights.at(m + "up_proj.bias")});
    w.down_bias = weights.at(m + "down_proj.bias");
  }
  if (config.qk_norm) {
    w.q_norm = weights.at(a + "q_norm.weight");
    w.k_norm = weights.at(a + "k_norm.weight");
  }
}

// Undefined: the layer has no tensor of this name.
at::Tensor FamilyWeight(const ModelConfig& config, const LayerWeights& w, const std::string& leaf) {
  const int64_t queries = config.num_heads * config.head_dim;
  const int64_t keys = config.num_kv_heads * config.head_dim, I = config.intermediate_size;
  if (leaf == "self_attn.q_norm.weight") return w.q_norm;
  if (leaf == "self_attn.k_norm.weight") return w.k_norm;
  if (leaf == "self_attn.o_proj.bias") return w.o_bias;
  if (leaf == "mlp.down_proj.bias") return w.down_bias;
  if (w.gate_up_bias.defined()) {
    if (leaf == "mlp.gate_proj.bias") return w.gate_up_bias.narrow(0, 0, I);
    if (leaf == "mlp.up_proj.bias") return w.gate_up_bias.narrow(0, I, I);
  }
  if (w.qkv_bias.defined()) {
    if (leaf == "self_attn.q_proj.bias") return w.qkv_bias.narrow(0, 0, queries);
    if (leaf == "self_attn.k_proj.bias") return w.qkv_bias.narrow(0, queries, keys);
    if (leaf == "self_attn.v_proj.bias") return w.qkv_bias.narrow(0, queries + keys, keys);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Llama>> Llama::Load(const std::string& directory,
                                           const ComputeDevice& device) {
  TANDEM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(directory));
  TANDEM_ASSIGN_OR_RETURN(const SafetensorsModel files, SafetensorsModel::Open(directory));
  TANDEM_RETURN_IF_ERROR(CheckModelTensors(config, files));
  std::map<std::string, at::Tensor> weights;
  for (const TensorView& expected : ExpectedTensors(config)) {
    weights[expected.name] = Placed(CopyOut(*files.Find(expected.name)), device);
  }
  return std::make_unique<Llama>(config, weights, device);
}

Llama::Llama(const ModelConfig& config, const std::map<std::string, at::Tensor>& given,
             const ComputeDevice& device)
    : config_(config), device_(device) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& [name, weight] : given) weights[name] = Placed(weight, device);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string p = LayerPrefix(layer), a = p + "self_attn.", m = p + "mlp.";
    LayerWeights w;
    w.input_norm = weights.at(p + "input_layernorm.weight");
    w.post_norm = weights.at(p + "post_attention_layernorm.weight");
    w.qkv = at::cat({weights.at(a + "q_proj.weight"), weights.at(a + "k_proj.weight"),
                     weights.at(a + "v_proj.weight")});
    w.o = weights.at(a + "o_proj.weight");
    w.gate_up = at::cat({weights.at(m + "gate_proj.weight"), weights.at(m + "up_proj.weight")});
    w.down = weights.at(m + "down_proj.weight");
    ReadFamilyWeights(config, weights, p, w);
    layers_.push_back(std::move(w));
  }
  embedding_ = weights.at("model.embed_tokens.weight");
  final_norm_ = weights.at("model.norm.weight");
  lm_head_ = config.tie_word_embeddings ? embedding_ : weights.at("lm_head.weight");
  std::vector<float> frequencies = RopeInverseFrequencies(config.rope, config.head_dim);
  inverse_frequencies_ = at::empty({static_cast<int64_t>(frequencies.size())}, at::kFloat);
  std::copy(frequencies.begin(), frequencies.end(), inverse_frequencies_.mutable_data_ptr<float>());
  inverse_frequencies_ = inverse_frequencies_.to(device.device);
}

at::Tensor Llama::Weight(const std::string& name) const {
  return StoredWeight(name).to(at::kCPU, at::kFloat);
}

at::Tensor Llama::StoredWeight(const std::string& name) const {
  if (name == "model.embed_tokens.weight") return embedding_;
  if (name == "model.norm.weight") return final_norm_;
  if (name == "lm_head.weight") return lm_head_;
  const int64_t queries = config_.num_heads * config_.head_dim;
  const int64_t keys = config_.num_kv_heads * config_.head_dim, I = config_.intermediate_size;
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const std::string p = LayerPrefix(i);
    if (name.compare(0, p.size(), p) != 0) continue;
    const std::string leaf = name.substr(p.size());
    const LayerWeights& w = layer(i);
    if (leaf == "input_layernorm.weight") return w.input_norm;
    if (leaf == "post_attention_layernorm.weight") return w.post_norm;
    if (leaf == "self_attn.q_proj.weight") return w.qkv.narrow(0, 0, queries);
    if (leaf == "self_attn.k_proj.weight") return w.qkv.narrow(0, queries, keys);
    if (leaf == "self_attn.v_proj.weight") return w.qkv.narrow(0, queries + keys, keys);
    if (leaf == "self_attn.o_proj.weight") return w.o;
    if (leaf == "mlp.gate_proj.weight") return w.gate_up.narrow(0, 0, I);
    if (leaf == "mlp.up_proj.weight") return w.gate_up.narrow(0, I, I);
    if (leaf == "mlp.down_proj.weight") return w.down;
    const at::Tensor other = FamilyWeight(config_, w, leaf);
    if (other.defined()) return other;
  }
  TORCH_CHECK(false, "the model has no tensor ", name);
}

at::Tensor Llama::Embed(const at::Tensor& ids_BT) const {
  TORCH_CHECK(ids_BT.dim() == 2, "ids must have shape (B,T), not ", ids_BT.sizes());
  return at::index_select(embedding_, 0, ids_BT.to(device_.device).reshape({-1}))
      .to(at::kFloat)
      .view({ids_BT.size(0), ids_BT.size(1), config_.hidden_size});
}

QkvTensors Llama::Qkv(const at::Tensor& x_BTD, int64_t layer_index, const LayerParameters* lora,
                      int64_t start) const {
  const LayerWeights& w = layer(layer_index);
  const NormedRows normed = RmsNorm(x_BTD, w.input_norm, config_.rms_norm_eps);
  const at::Tensor rows =
      ProjectQkv(config_, w, QkvProjection(config_, w, lora), AsRows(normed.y), nullptr);
  const Rotary rotary = RotaryTables(x_BTD.size(1), start);
  Rotate(rows, config_.num_heads + config_.num_kv_heads, {rotary.cos, rotary.sin}, false);
  return SplitQkv(config_, rows, x_BTD.size(0), x_BTD.size(1));
}

at::Tensor Llama::FinishLayer(const at::Tensor& x_BTD, const at::Tensor& y_BHTd,
                              int64_t layer_index, const LayerParameters* lora) const {
  const LayerWeights& w = layer(layer_index);
  at::Tensor x = AsRows(x_BTD);
  if (y_BHTd.defined()) x = OutputProjection(w, lora).AddTo(x, HeadsAsRows(y_BHTd));
  const NormedRows normed = RmsNorm(x, w.post_norm, config_.rms_norm_eps);
  return AddProjected(x, SwiGlu(GateUp(w, normed.y)), w.down, w.down_bias).view(x_BTD.sizes());
}

at::Tensor Llama::FinalNorm(const at::Tensor& x_BTD) const {
  return RmsNorm(x_BTD, final_norm_, config_.rms_norm_eps).y;
}

at::Tensor Llama::Logits(const at::Tensor& normed_ND) const {
  return TimesTransposed(normed_ND, lm_head_);
}

Llama::Rotary Llama::RotaryTables(int64_t num_tokens, int64_t start) const {
  const at::Tensor positions =
      at::arange(start, start + num_tokens, inverse_frequencies_.options());
  const at::Tensor angles = at::outer(positions, inverse_frequencies_);
  const double factor = config_.rope.attention_factor;
  if (factor == 1) return {angles.cos(), angles.sin()};
  return {angles.cos().mul_(factor), angles.sin().mul_(factor)};
}

}  // namespace tandem
