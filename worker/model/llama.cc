#include "worker/model/llama.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/tensor.h>

#include <cstring>
#include <utility>

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
at::Tensor ToFloatTensor(const TensorView& view) {
  at::Tensor raw = at::empty(view.shape, at::TensorOptions(ScalarTypeOf(view.dtype)));
  std::memcpy(raw.data_ptr(), view.data, static_cast<size_t>(view.bytes));
  return raw.to(at::kFloat);
}

std::string LayerPrefix(int64_t layer_index) {
  return "model.layers." + std::to_string(layer_index) + ".";
}

}  // namespace

Result<std::unique_ptr<Llama>> Llama::Load(const std::string& directory) {
  TANDEM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(directory));
  TANDEM_ASSIGN_OR_RETURN(const SafetensorsModel files, SafetensorsModel::Open(directory));
  TANDEM_RETURN_IF_ERROR(CheckModelTensors(config, files));
  std::map<std::string, at::Tensor> weights;
  for (const TensorView& expected : ExpectedTensors(config)) {
    weights[expected.name] = ToFloatTensor(*files.Find(expected.name));
  }
  return std::make_unique<Llama>(config, weights);
}

Llama::Llama(const ModelConfig& config, const std::map<std::string, at::Tensor>& weights)
    : config_(config), inverse_frequencies_(RopeInverseFrequencies(config.rope, config.head_dim)) {
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
    layers_.push_back(std::move(w));
  }
  embedding_ = weights.at("model.embed_tokens.weight");
  final_norm_ = weights.at("model.norm.weight");
  lm_head_ = config.tie_word_embeddings ? embedding_ : weights.at("lm_head.weight");
}

at::Tensor Llama::Weight(const std::string& name) const {
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
  }
  TORCH_CHECK(false, "the model has no tensor ", name);
}

at::Tensor Llama::Embed(const at::Tensor& ids_BT) const {
  TORCH_CHECK(ids_BT.dim() == 2, "ids must have shape (B,T), not ", ids_BT.sizes());
  return at::index_select(embedding_, 0, ids_BT.reshape({-1}))
      .view({ids_BT.size(0), ids_BT.size(1), config_.hidden_size});
}

QkvTensors Llama::Qkv(const at::Tensor& x_BTD, int64_t layer_index,
                      const LayerParameters* lora, int64_t start) const {
  const LayerWeights& w = layer(layer_index);
  const NormedRows normed = RmsNorm(x_BTD, w.input_norm, config_.rms_norm_eps);
  const at::Tensor rows = at::mm(AsRows(normed.y), MergedQkv(config_, w, lora).t());
  const Rotary rotary = RotaryTables(x_BTD.size(1), start);
  Rotate(rows, config_.num_heads + config_.num_kv_heads, {rotary.cos, rotary.sin}, false);
  return SplitQkv(config_, rows, x_BTD.size(0), x_BTD.size(1));
}

at::Tensor Llama::FinishLayer(const at::Tensor& x_BTD, const at::Tensor& y_BHTd,
                              int64_t layer_index, const LayerParameters* lora) const {
  const LayerWeights& w = layer(layer_index);
  at::Tensor x = AsRows(x_BTD);
  if (y_BHTd.defined()) x = at::addmm(x, HeadsAsRows(y_BHTd), MergedOutput(w, lora).t());
  const NormedRows normed = RmsNorm(x, w.post_norm, config_.rms_norm_eps);
  const at::Tensor inner = SwiGlu(at::mm(normed.y, w.gate_up.t()));
  if (!y_BHTd.defined()) x = x.clone();  // never write into the caller's tensor
  return x.addmm_(inner, w.down.t()).view(x_BTD.sizes());
}

at::Tensor Llama::FinalNorm(const at::Tensor& x_BTD) const {
  return RmsNorm(x_BTD, final_norm_, config_.rms_norm_eps).y;
}

at::Tensor Llama::Logits(const at::Tensor& normed_ND) const {
  return at::mm(normed_ND, lm_head_.t());
}

Llama::Rotary Llama::RotaryTables(int64_t num_tokens, int64_t start) const {
  const int64_t half = config_.head_dim / 2;
  at::Tensor frequencies = at::empty({half}, at::kFloat);
  std::memcpy(frequencies.data_ptr(), inverse_frequencies_.data(),
              static_cast<size_t>(half) * sizeof(float));
  const at::Tensor positions = at::empty({num_tokens}, at::kFloat);
  float* position = positions.mutable_data_ptr<float>();
  for (int64_t t = 0; t < num_tokens; ++t) position[t] = static_cast<float>(start + t);
  const at::Tensor angles = at::outer(positions, frequencies);
  return {angles.cos(), angles.sin()};
}

}  // namespace tandem
