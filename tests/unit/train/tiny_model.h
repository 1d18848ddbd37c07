// A tiny random Llama for tests: 2 layers, 32 hidden, 4 query and 2 key/value heads of 8, 64 words.
// Made by Philox: the same numbers on every machine.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "worker/data/philox.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"

namespace tandem::testing {

inline ModelConfig TinyConfig() {
  ModelConfig config;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.vocab_size = 64;
  config.max_position_embeddings = 256;
  config.rms_norm_eps = 1e-5;
  config.tie_word_embeddings = true;
  return config;
}

// Uniform in [-bound, bound).
inline at::Tensor RandomTensor(at::IntArrayRef shape, double bound, int64_t number) {
  const PhiloxStream stream(7, number, RandomPurpose::kTest);
  at::Tensor t = at::empty(shape, at::kFloat);
  float* values = t.mutable_data_ptr<float>();
  for (int64_t i = 0; i < t.numel(); ++i) {
    values[i] = static_cast<float>((2.0 * stream.Uniform(i) - 1.0) * bound);
  }
  return t;
}

inline std::unique_ptr<Llama> TinyModel(const ComputeDevice& device = {}) {
  const ModelConfig config = TinyConfig();
  std::map<std::string, at::Tensor> weights;
  int64_t number = 0;
  for (const TensorView& view : ExpectedTensors(config)) {
    const bool is_norm = view.shape.size() == 1;
    const double bound = is_norm ? 0.2 : 2.0 / std::sqrt(static_cast<double>(view.shape.back()));
    at::Tensor t = RandomTensor(view.shape, bound, ++number);
    if (is_norm) t.add_(1.0);
    weights[view.name] = t;
  }
  return std::make_unique<Llama>(config, weights, device);
}

inline ParameterOptions TinyParameterOptions() {
  ParameterOptions options;
  options.feature_dim = 8;
  options.lora.rank = 2;
  options.lora.alpha = 4;
  options.lora.targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
  return options;
}

// Everything disturbed, so that no term of the mathematics is zero.
inline void Disturb(const Parameters& parameters) {
  int64_t number = 1000;
  for (const auto& [name, tensor] : parameters.tensors()) {
    tensor.add_(RandomTensor(tensor.sizes(), 0.3, ++number));
  }
}

inline at::Tensor RandomIds(int64_t B, int64_t T, int64_t vocab, int64_t number) {
  const PhiloxStream stream(11, number, RandomPurpose::kTest);
  at::Tensor ids = at::empty({B, T}, at::kLong);
  int64_t* values = ids.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < ids.numel(); ++i) values[i] = stream.Below(vocab, i);
  return ids;
}

}  // namespace tandem::testing
