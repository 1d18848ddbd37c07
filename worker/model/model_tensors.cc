// The tensors that a config promises, and whether a model directory keeps the promise.
#include <algorithm>
#include <cstring>
#include <map>

#include "worker/model/config_keys.h"

namespace tandem {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// Index of the first NaN or infinity, -1: none. Both have all bits of the exponent set. Training
// would find one too, but only as a loss that is not finite, and blame the learning rate.
template <typename Word>
int64_t FirstNonFinite(const TensorView& view, Word exponent) {
  constexpr int64_t kBlock = 1024;
  const auto count = view.bytes / static_cast<int64_t>(sizeof(Word));
  Word block[kBlock] = {};  // a copy: foreign files may be unaligned
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const auto size = static_cast<size_t>(std::min(kBlock, count - begin));
    std::memcpy(block, view.data + begin * static_cast<int64_t>(sizeof(Word)), size * sizeof(Word));
    const auto is_bad = [exponent](Word word) { return (word & exponent) == exponent; };
    bool any = false;
    for (const Word word : block) any |= is_bad(word);  // without a branch: vectorised
    if (any) return begin + (std::find_if(block, block + size, is_bad) - block);
  }
  return -1;
}

int64_t FirstNonFinite(const TensorView& view) {
  if (view.dtype == "F32") return FirstNonFinite<uint32_t>(view, 0x7f800000U);
  return FirstNonFinite<uint16_t>(view, view.dtype == "F16" ? 0x7c00U : 0x7f80U);
}

}  // namespace

std::vector<TensorView> ExpectedTensors(const ModelConfig& config) {
  const int64_t D = config.hidden_size, q = config.num_heads * config.head_dim,
                kv = config.num_kv_heads * config.head_dim, I = config.intermediate_size;
  std::vector<TensorView> expected;
  const auto add = [&expected](const std::string& name, std::vector<int64_t> shape) {
    TensorView view;
    view.name = name;
    view.shape = std::move(shape);
    expected.push_back(std::move(view));
  };
  add("model.embed_tokens.weight", {config.vocab_size, D});
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string p = "model.layers." + std::to_string(layer) + ".", a = p + "self_attn.";
    add(p + "input_layernorm.weight", {D});
    add(a + "q_proj.weight", {q, D});
    add(a + "k_proj.weight", {kv, D});
    add(a + "v_proj.weight", {kv, D});
    if (config.qkv_bias) {
      add(a + "q_proj.bias", {q});
      add(a + "k_proj.bias", {kv});
      add(a + "v_proj.bias", {kv});
    }
    if (config.qk_norm) {
      add(a + "q_norm.weight", {config.head_dim});
      add(a + "k_norm.weight", {config.head_dim});
    }
    add(a + "o_proj.weight", {D, q});
    if (config.output_bias) add(a + "o_proj.bias", {D});
    add(p + "post_attention_layernorm.weight", {D});
    add(p + "mlp.gate_proj.weight", {I, D});
    add(p + "mlp.up_proj.weight", {I, D});
    add(p + "mlp.down_proj.weight", {D, I});
    if (config.mlp_bias) {
      add(p + "mlp.gate_proj.bias", {I});
      add(p + "mlp.up_proj.bias", {I});
      add(p + "mlp.down_proj.bias", {D});
    }
  }
  add("model.norm.weight", {D});
  if (!config.tie_word_embeddings) add("lm_head.weight", {config.vocab_size, D});
  return expected;
}

Status CheckModelTensors(const ModelConfig& config, const SafetensorsModel& model) {
  std::vector<std::string> missing, wrong, unknown, not_finite;
  std::map<std::string, bool> promised;
  for (const TensorView& want : ExpectedTensors(config)) {
    promised[want.name] = true;
    const TensorView* have = model.Find(want.name);
    if (have == nullptr) {
      missing.push_back("tensor '" + want.name + "' is missing");
    } else if (have->shape != want.shape) {
      wrong.push_back("tensor '" + want.name + "' has the shape " + ShapeText(have->shape) +
                      "; config.json promises " + ShapeText(want.shape));
    } else if (have->dtype != "F32" && have->dtype != "F16" && have->dtype != "BF16") {
      wrong.push_back("tensor '" + want.name + "' is " + have->dtype + "; allowed: F32, F16, BF16");
    } else if (const int64_t at = FirstNonFinite(*have); at >= 0) {
      not_finite.push_back("tensor '" + want.name + "' holds NaN or infinity, first at element " +
                           std::to_string(at) + "; take a whole copy of the model");
    }
  }
  for (const auto& [name, view] : model.tensors()) {
    const bool tied_copy = config.tie_word_embeddings && name == "lm_head.weight";
    if (!promised.contains(name) && !name.ends_with("rotary_emb.inv_freq") && !tied_copy) {
      unknown.push_back("tensor '" + name.substr(0, 120) + "' does not belong to model_type " +
                        config.model_type);
    }
  }
  std::vector<std::string> lines;
  for (std::vector<std::string>* kind : {&missing, &wrong, &unknown, &not_finite}) {
    const size_t total = kind->size();
    if (total > 10) {
      kind->resize(10);
      kind->push_back("... and " + std::to_string(total - 10) + " more of this kind");
    }
    lines.insert(lines.end(), kind->begin(), kind->end());
  }
  return lines.empty() ? Status::Ok() : InvalidArgument(ViolationLines(lines, model.directory()));
}

}  // namespace tandem
