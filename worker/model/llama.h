// Llama: the frozen base model as functions from layer to layer.
//
// The name stands for the family: Llama, Mistral, Qwen2 and Qwen3 differ by biases and by a norm of
// each head's q and k (model_config.h), and share everything else.
// It knows nothing of training: attention transfer, finetuning and evaluation are made of these
// functions and of the attention operators. Weights come from safetensors (bf16, fp16 or fp32)
// and lie on one device in the base's type (device.h), norms and biases in fp32; hidden states are
// fp32 everywhere. The projections that read the same input are stored as one matrix. No
// function keeps anything for backward: the model's own backward is layer_backward.h. Immutable
// after loading: any thread. Wrong shapes throw c10::Error.
//
// Shapes: B sequences, T tokens, D hidden, H query heads, K key/value heads, d head dimension, V
// vocabulary, I intermediate. Positions are 0 ... T-1 unless a start is given.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/model/device.h"
#include "worker/model/model_config.h"
#include "worker/model/parameters.h"

namespace tandem {

// q (B,H,T,d) and k (B,K,T,d) after RoPE, v (B,K,T,d): views into one (B,T,(H+2K)d) projection.
struct QkvTensors {
  at::Tensor q, k, v;
};

// One layer's frozen weights.
struct LayerWeights {
  at::Tensor input_norm, post_norm;  // (D)
  at::Tensor qkv;                    // ((H+2K)d, D)
  at::Tensor o;                      // (D, H d)
  at::Tensor gate_up;                // (2I, D)
  at::Tensor down;                   // (D, I)
  // Undefined where the family has none.
  at::Tensor qkv_bias, o_bias, gate_up_bias, down_bias;  // ((H+2K)d), (D), (2I), (D)
  at::Tensor q_norm, k_norm;                             // (d)
};

class Llama {
 public:
  // Reads and checks config.json and the safetensors; Status names what is wrong with them.
  static Result<std::unique_ptr<Llama>> Load(const std::string& directory,
                                             const ComputeDevice& device = {});
  // From tensors in memory, with the names and shapes of ExpectedTensors(config).
  Llama(const ModelConfig& config, const std::map<std::string, at::Tensor>& weights,
        const ComputeDevice& device = {});

  const ModelConfig& config() const { return config_; }
  const ComputeDevice& device() const { return device_; }
  const LayerWeights& layer(int64_t layer_index) const {
    return layers_[static_cast<size_t>(layer_index)];
  }
  const at::Tensor& embedding() const { return embedding_; }    // (V,D)
  const at::Tensor& final_norm() const { return final_norm_; }  // (D)
  const at::Tensor& lm_head() const { return lm_head_; }        // (V,D); the embedding when tied
  // The tensor of a Hugging Face name, e.g. "model.layers.0.self_attn.q_proj.weight", fp32 on the
  // host: a view where it is kept so.
  at::Tensor Weight(const std::string& name) const;

  // ids int64 (B,T), on the host or where the model is -> (B,T,D), own memory.
  at::Tensor Embed(const at::Tensor& ids_BT) const;
  // Input norm, projections (+ LoRA where the pairs are defined), heads' norm, RoPE. lora null: the
  // base alone. start: the position of the first token, for prefill in parts and decoding.
  QkvTensors Qkv(const at::Tensor& x_BTD, int64_t layer_index, const LayerParameters* lora,
                 int64_t start = 0) const;
  // x + W_o y, then + MLP(norm(.)). y (B,H,T,d); undefined: attention gave nothing (mode none).
  at::Tensor FinishLayer(const at::Tensor& x_BTD, const at::Tensor& y_BHTd, int64_t layer_index,
                         const LayerParameters* lora) const;
  at::Tensor FinalNorm(const at::Tensor& x_BTD) const;
  // Logits of already normed rows: (N,D) -> (N,V). Chunk N: a logit row is V floats.
  at::Tensor Logits(const at::Tensor& normed_ND) const;

  // cos and sin of positions start ... start+T-1, (T,d/2) each, made in fp32 as transformers makes
  // them; yarn scales both.
  struct Rotary {
    at::Tensor cos, sin;
  };
  Rotary RotaryTables(int64_t num_tokens, int64_t start = 0) const;

 private:
  at::Tensor StoredWeight(const std::string& name) const;

  ModelConfig config_;
  ComputeDevice device_;
  std::vector<LayerWeights> layers_;
  at::Tensor embedding_, final_norm_, lm_head_;
  at::Tensor inverse_frequencies_;  // (d/2) fp32
};

}  // namespace tandem
