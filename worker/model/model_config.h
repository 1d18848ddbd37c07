// ModelConfig: the base model's shape, read from a Hugging Face config.json. Torch-free.
//
// It exists so that everything a model directory says about itself is checked once, before a byte
// is trained: all violations are reported together, each with key, value and what is allowed; what
// Tandem cannot run is refused by name. Families: llama, mistral, qwen2, qwen3; they differ in the
// flags below. An export of Tandem's own (hybrid_linear) reads as its base. Both spellings of
// transformers are read (4.x: rope_theta + rope_scaling, torch_dtype; 5.x: rope_parameters, dtype),
// a contradiction between them is an error. Plain value, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/model/safetensors.h"

namespace tandem {

// Rotary embedding, pairs (i, i + d/2).
struct RopeConfig {
  std::string type = "default";  // default, linear, llama3, yarn
  double theta = 10000.0;
  double factor = 1.0;                                   // linear, llama3, yarn
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  double attention_factor = 1.0;                         // yarn: cos and sin are multiplied by it
  int64_t original_max_position_embeddings = 0;          // llama3, yarn
};

// d/2 inverse frequencies in fp32, as transformers computes them (within 3e-7): theta^(-2i/d),
// scaled by the type's rule (linear: divided by factor; llama3: by wavelength, "The Llama 3 Herd of
// Models" §3.4 and its reference code; yarn: Peng et al. 2023, "NTK-by-parts").
std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim);

struct ModelConfig {
  std::string model_type = "llama";  // llama, mistral, qwen2, qwen3
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;     // q_proj, k_proj, v_proj: qwen2, or attention_bias
  bool output_bias = false;  // o_proj: attention_bias
  bool mlp_bias = false;
  bool qk_norm = false;        // qwen3: q and k are normed per head, before RoPE
  int64_t sliding_window = 0;  // the base's own: keys a token sees; 0: all
  std::vector<int64_t> bos_token_ids, eos_token_ids;  // empty when config.json has none
};

// `where` opens the messages: usually the file's path.
Result<ModelConfig> ParseModelConfig(const std::string& json, const std::string& where);
// <directory>/config.json.
Result<ModelConfig> ReadModelConfig(const std::string& directory);

// Refuses sequences longer than the base's own sliding window: its softmax is then not full, and
// would be converted into something that it never was.
Status CheckSequenceLength(const ModelConfig& config, int64_t num_tokens);

// The names the config promises, with their shapes: embeddings, each layer's weights, biases and
// norms, final norm, LM head unless tied.
std::vector<TensorView> ExpectedTensors(const ModelConfig& config);
// Every expected tensor is there with its shape in F32, F16 or BF16 and finite, and nothing else
// but rotary_emb.inv_freq (and a copy of tied embeddings under lm_head.weight). All violations at
// once, at most ten of a kind. Reads every number once.
Status CheckModelTensors(const ModelConfig& config, const SafetensorsModel& model);

}  // namespace tandem
