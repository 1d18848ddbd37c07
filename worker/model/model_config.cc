#include "worker/model/model_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "worker/model/config_keys.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = 1 << 20;

// What would change the computation and is not built.
void RefuseUnsupported(const json& root, std::vector<std::string>* bad) {
  KeyReader keys(root, "", bad);
  if (keys.String("hidden_act", "silu") != "silu") keys.Refuse("hidden_act", "must be 'silu'");
  if (keys.Has("quantization_config")) {
    keys.Refuse("quantization_config",
                "quantized weights are not supported; save them in bfloat16");
  }
  if (keys.Integer("pretraining_tp", 1, 1 << 20, 1, false) != 1) {
    keys.Refuse("pretraining_tp", "must be 1");
  }
  if (keys.Number("partial_rotary_factor", 0, 1, 1) != 1) {
    keys.Refuse("partial_rotary_factor", "only 1 is supported");
  }
}

// Layers from max_window_layers on slide in Qwen; layer_types, where it stands, says it per layer.
bool AllLayersAreFull(const json& root, const ModelConfig& config) {
  if (root.contains("layer_types") && root["layer_types"].is_array()) {
    for (const json& kind : root["layer_types"]) {
      if (kind != "full_attention") return false;
    }
    return !root["layer_types"].empty();
  }
  const json first = root.contains("max_window_layers") ? root["max_window_layers"] : json(28);
  return config.model_type != "mistral" && first.is_number_integer() &&
         first.get<int64_t>() >= config.num_layers;
}

// Where the families differ (transformers' own modelling files, 4.57 and 5.24).
void ReadFamily(const json& root, std::vector<std::string>* bad, ModelConfig* config) {
  KeyReader keys(root, "", bad);
  const std::string& type = config->model_type;
  const bool has_key = type == "llama" || type == "qwen3";  // the others never look at it
  const bool attention_bias = has_key && keys.Boolean("attention_bias", false);
  config->qkv_bias = attention_bias || type == "qwen2";
  config->output_bias = attention_bias;
  config->mlp_bias = type == "llama" && keys.Boolean("mlp_bias", false);
  config->qk_norm = type == "qwen3";
  const bool is_qwen = type == "qwen2" || type == "qwen3";
  if (type == "llama" || (is_qwen && !keys.Boolean("use_sliding_window", false))) return;
  const bool is_null = root.contains("sliding_window") && root["sliding_window"].is_null();
  const int64_t window = keys.Integer("sliding_window", 1, int64_t{1} << 40, 4096, false);
  if (is_null || AllLayersAreFull(root, *config)) return;
  config->sliding_window = window;
}

void ReadSizes(const json& root, std::vector<std::string>* bad, ModelConfig* config) {
  KeyReader keys(root, "", bad);
  config->hidden_size = keys.Integer("hidden_size", 1, 1 << 20, 0, true);
  config->intermediate_size = keys.Integer("intermediate_size", 1, 1 << 24, 0, true);
  config->num_layers = keys.Integer("num_hidden_layers", 1, 4096, 0, true);
  config->num_heads = keys.Integer("num_attention_heads", 1, 4096, 0, true);
  config->num_kv_heads = keys.Integer("num_key_value_heads", 1, 4096, config->num_heads,
                                      /*required=*/config->model_type != "llama");
  config->vocab_size = keys.Integer("vocab_size", 1, 1 << 26, 0, true);
  config->max_position_embeddings =
      keys.Integer("max_position_embeddings", 1, int64_t{1} << 40, 2048, false);
  const int64_t heads = config->num_heads;
  if (heads > 0 && config->num_kv_heads > 0 && heads % config->num_kv_heads != 0) {
    keys.Refuse("num_key_value_heads", "must divide num_attention_heads " + std::to_string(heads));
  }
  const bool divides = heads > 0 && config->hidden_size % heads == 0;
  const bool is_qwen3 = config->model_type == "qwen3";  // 128 whatever the sizes
  if (!keys.Has("head_dim") && heads > 0 && !divides && !is_qwen3) {
    keys.Refuse("hidden_size", "must be a multiple of num_attention_heads " +
                                   std::to_string(heads) + " where head_dim is absent");
  }
  const int64_t usual_dim = is_qwen3 ? 128 : divides ? config->hidden_size / heads : 2;
  config->head_dim = keys.Integer("head_dim", 2, 4096, usual_dim, false);
  if (config->head_dim % 8 != 0) {
    bad->push_back("head_dim is " + std::to_string(config->head_dim) + "; must be a multiple of 8");
  }
  config->rms_norm_eps = keys.Number("rms_norm_eps", 0, 1, 1e-6);
  config->tie_word_embeddings = keys.Boolean("tie_word_embeddings", false);
  config->bos_token_ids = keys.Integers("bos_token_id");
  config->eos_token_ids = keys.Integers("eos_token_id");
}

// An export names its base under base_model_type.
std::string FamilyOf(const json& root) {
  const auto text = [&root](const char* key) {
    return root.contains(key) && root[key].is_string() ? root[key].get<std::string>() : "";
  };
  const std::string type = text("model_type");
  return type == "hybrid_linear" ? text("base_model_type") : type;
}

}  // namespace

Result<ModelConfig> ParseModelConfig(const std::string& text, const std::string& where) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return InvalidArgument(where + " is not a JSON object");
  ModelConfig config;
  config.model_type = FamilyOf(root);
  const std::vector<std::string> families = {"llama", "mistral", "qwen2", "qwen3"};
  if (std::find(families.begin(), families.end(), config.model_type) == families.end()) {
    const std::string type = root.contains("model_type") ? root["model_type"].dump(-1, ' ', true)
                                                         : std::string("absent");
    return InvalidArgument(where + ": model_type is " + type.substr(0, 80) +
                           "; supported: \"llama\", \"mistral\", \"qwen2\", \"qwen3\"");
  }
  std::vector<std::string> violations;
  ReadSizes(root, &violations, &config);
  ReadFamily(root, &violations, &config);
  RefuseUnsupported(root, &violations);
  config.rope = ReadRope(root, &violations);
  if (config.rope.original_max_position_embeddings == 0) {
    config.rope.original_max_position_embeddings = config.max_position_embeddings;
  }
  if (!violations.empty()) return InvalidArgument(ViolationLines(violations, where));
  return config;
}

Result<ModelConfig> ReadModelConfig(const std::string& directory) {
  if (!IsFolder(directory)) {
    return NotFound(directory + " is not a folder; a Hugging Face model directory is needed");
  }
  const std::string path = JoinPath(directory, "config.json");
  if (!PathExists(path)) {
    return NotFound(path + " is not there; a Hugging Face model directory is needed");
  }
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseModelConfig(text, path);
}

Status CheckSequenceLength(const ModelConfig& config, int64_t num_tokens) {
  if (config.sliding_window == 0 || num_tokens <= config.sliding_window) return Status::Ok();
  return InvalidArgument(
      "the base has a sliding window of its own: sliding_window is " +
      std::to_string(config.sliding_window) + ", and sequences of " + std::to_string(num_tokens) +
      " tokens do not fit into it; at most " + std::to_string(config.sliding_window) +
      " are possible, because beyond it the base's attention is not full softmax");
}

}  // namespace tandem
