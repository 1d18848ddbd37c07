// A random Llama of a few thousand weights, with text for it: written to a folder as a job would
// find it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/files.h"
#include "tests/unit/data/shard_files.h"
#include "worker/data/philox.h"
#include "worker/model/model_config.h"
#include "worker/model/parameters.h"

namespace tandem {

inline constexpr int64_t kTinyVocab = 96;

inline std::string TinyConfigJson(bool tied) {
  return nlohmann::json{{"architectures", {"LlamaForCausalLM"}},
                        {"model_type", "llama"},
                        {"vocab_size", kTinyVocab},
                        {"hidden_size", 32},
                        {"intermediate_size", 48},
                        {"num_hidden_layers", 2},
                        {"num_attention_heads", 4},
                        {"num_key_value_heads", 2},
                        {"head_dim", 16},
                        {"hidden_act", "silu"},
                        {"max_position_embeddings", 512},
                        {"rms_norm_eps", 1e-5},
                        {"rope_theta", 10000.0},
                        {"rope_scaling", nullptr},
                        {"tie_word_embeddings", tied},
                        {"attention_bias", false},
                        {"mlp_bias", false},
                        {"bos_token_id", 0},
                        {"eos_token_id", 1},
                        {"torch_dtype", "float32"}}
      .dump(1);
}

// Uniform in +-range, from one counter.
inline std::vector<float> RandomFloats(int64_t count, int64_t stream_index, double range) {
  const PhiloxStream stream(99, stream_index, RandomPurpose::kTest);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(static_cast<float>((2 * stream.Uniform(i) - 1) * range));
  }
  return values;
}

// Of any family: `config_json` says which.
inline Status WriteRandomModel(const std::string& folder, const std::string& config_json) {
  TANDEM_RETURN_IF_ERROR(MakeFolders(folder));
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(JoinPath(folder, "config.json"), config_json));
  TANDEM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(folder));
  std::vector<TensorView> tensors = ExpectedTensors(config);
  std::vector<std::vector<float>> memory;
  for (TensorView& view : tensors) {
    const bool is_norm = view.name.ends_with("norm.weight");
    const double range =
        is_norm ? 0.2 : 2 / std::sqrt(static_cast<double>(view.shape.back()));  // biases too
    view.dtype = "F32";
    view.bytes = TensorBytes("F32", view.shape).value();
    memory.push_back(RandomFloats(view.bytes / 4, static_cast<int64_t>(memory.size()), range));
    if (is_norm) {
      for (float& value : memory.back()) value += 1;
    }
    view.data = reinterpret_cast<const std::byte*>(memory.back().data());
  }
  return WriteSafetensors(JoinPath(folder, "model.safetensors"), tensors);
}

inline Status WriteTinyModel(const std::string& folder, bool tied) {
  return WriteRandomModel(folder, TinyConfigJson(tied));
}

// Documents of random ids, u16.
inline Status WriteTinyText(const std::string& prefix, int64_t documents, int64_t length) {
  const PhiloxStream stream(5, 0, RandomPurpose::kTest);
  std::vector<std::vector<uint16_t>> texts;
  for (int64_t i = 0; i < documents; ++i) {
    texts.emplace_back();
    for (int64_t t = 0; t < length; ++t) {
      texts.back().push_back(static_cast<uint16_t>(stream.Below(kTinyVocab, i, t)));
    }
  }
  return WriteShard(prefix, MakeShard(texts));
}

// Moves every trained tensor away from its start, so that LoRA, maps and factors all count.
inline void DisturbParameters(const Parameters& parameters) {
  int64_t stream_index = 1000;
  for (const auto& [name, tensor] : parameters.tensors()) {
    at::Tensor target = tensor.detach();
    const auto noise = RandomFloats(target.numel(), stream_index++, 0.2);
    float* values = target.mutable_data_ptr<float>();
    for (int64_t i = 0; i < target.numel(); ++i) values[i] += noise[static_cast<size_t>(i)];
  }
}

}  // namespace tandem
