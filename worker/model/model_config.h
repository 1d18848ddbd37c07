// ModelConfig: the base model's shape, read from a Hugging Face config.json. Torch-free.
//
// It exists so that everything a model directory says about itself is checked once, before a byte
// is trained: all violations are reported together, each with key, value and what is allowed; what
// Tandem cannot run is refused by name. Both spellings of transformers are read (4.x: rope_theta +
// rope_scaling, torch_dtype; 5.x: rope_parameters, dtype), a contradiction between them is an
// error. Plain value, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/model/safetensors.h"

namespace tandem {

// Rotary embedding, pairs (i, i + d/2).
struct RopeConfig {
  std::string type = "default";  // default, linear, llama3
  double theta = 10000.0;
  double factor = 1.0;                                   // linear, llama3
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  int64_t original_max_position_embeddings = 0;          // llama3
};

// d/2 inverse frequencies in fp32, as transformers computes them (within 3e-7): theta^(-2i/d),
// scaled by the type's rule (linear: divided by factor; llama3: by wavelength, "The Llama 3 Herd of
// Models" §3.4 and its reference code).
std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim);

struct ModelConfig {
  std::string model_type = "llama";
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
  std::vector<int64_t> bos_token_ids, eos_token_ids;  // empty when config.json has none
};

// `where` opens the messages: usually the file's path.
Result<ModelConfig> ParseModelConfig(const std::string& json, const std::string& where);
// <directory>/config.json.
Result<ModelConfig> ReadModelConfig(const std::string& directory);

// The names the config promises, with their shapes: embeddings, nine weights per layer, final norm,
// LM head unless tied.
std::vector<TensorView> ExpectedTensors(const ModelConfig& config);
// Every expected tensor is there with its shape in F32, F16 or BF16, and nothing else but
// rotary_emb.inv_freq (and a copy of tied embeddings under lm_head.weight). All violations at once,
// at most ten of a kind.
Status CheckModelTensors(const ModelConfig& config, const SafetensorsModel& model);

}  // namespace tandem
