#include "worker/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/files.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = 1 << 20;
constexpr double kPi = 3.14159265358979323846;

// Reads keys of one object and collects what is wrong with them. Absent and null are the same.
class KeyReader {
 public:
  KeyReader(const json& object, std::string prefix, std::vector<std::string>* violations)
      : object_(object), prefix_(std::move(prefix)), violations_(violations) {}

  bool Has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }

  int64_t Integer(const char* key, int64_t low, int64_t high, int64_t absent, bool required) {
    if (!Has(key)) return Absent(key, absent, required);
    const json& value = object_[key];
    if (value.is_number_integer()) {
      const int64_t number = value.get<int64_t>();
      if (number >= low && number <= high && !IsHuge(value)) return number;
    }
    Refuse(key,
           "must be an integer in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
    return absent;
  }

  double Number(const char* key, double low, double high, double absent, bool required = false) {
    if (!Has(key)) return Absent(key, absent, required);
    const json& value = object_[key];
    if (value.is_number() && value.get<double>() >= low && value.get<double>() <= high) {
      return value.get<double>();
    }
    Refuse(key, "must be a number in [" + Text(low) + ", " + Text(high) + "]");
    return absent;
  }

  bool Boolean(const char* key, bool absent) {
    if (!Has(key)) return absent;
    if (object_[key].is_boolean()) return object_[key].get<bool>();
    Refuse(key, "must be true or false");
    return absent;
  }

  std::string String(const char* key, const std::string& absent) {
    if (!Has(key)) return absent;
    if (object_[key].is_string()) return object_[key].get<std::string>();
    Refuse(key, "must be a string");
    return absent;
  }

  // An integer or a list of them.
  std::vector<int64_t> Integers(const char* key) {
    std::vector<int64_t> numbers;
    if (!Has(key)) return numbers;
    const json& value = object_[key];
    for (const json& item : value.is_array() ? value : json::array({value})) {
      if (!item.is_number_integer() || item.get<int64_t>() < 0 || IsHuge(item)) {
        Refuse(key, "must be a token id or a list of them");
        return {};
      }
      numbers.push_back(item.get<int64_t>());
    }
    return numbers;
  }

  void Refuse(const char* key, const std::string& allowed) {
    std::string value = object_.contains(key) ? object_[key].dump(-1, ' ', true) : "absent";
    if (value.size() > 80) value = value.substr(0, 77) + "...";
    violations_->push_back(prefix_ + key + " is " + value + "; " + allowed);
  }

 private:
  static bool IsHuge(const json& value) {
    return value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{1} << 62;
  }
  static std::string Text(double number) { return json(number).dump(); }
  template <typename T>
  T Absent(const char* key, T absent, bool required) {
    if (required) Refuse(key, "it is needed");
    return absent;
  }
  const json& object_;
  std::string prefix_;
  std::vector<std::string>* violations_;
};

// original_max_position_embeddings 0: the model's own, set when the whole file is read.
void ReadYarn(KeyReader& keys, RopeConfig* rope) {
  rope->beta_fast = keys.Number("beta_fast", 1e-3, 1e6, 32);
  rope->beta_slow = keys.Number("beta_slow", 1e-3, 1e6, 1);
  rope->attention_factor =
      keys.Number("attention_factor", 1e-3, 1e3, 0.1 * std::log(rope->factor) + 1);
  rope->original_max_position_embeddings =
      keys.Integer("original_max_position_embeddings", 1, 1 << 30, 0, false);
  for (const char* key : {"mscale", "mscale_all_dim"}) {
    if (keys.Has(key)) keys.Refuse(key, "is not supported; delete it");
  }
  if (!keys.Boolean("truncate", true)) keys.Refuse("truncate", "must be true");
  if (rope->beta_fast <= rope->beta_slow) keys.Refuse("beta_fast", "must be above beta_slow");
}

void ReadRopeScaling(const json& object, const std::string& prefix, std::vector<std::string>* bad,
                     RopeConfig* rope) {
  if (!object.is_object()) {
    bad->push_back(prefix + " must be an object with rope_type");
    return;
  }
  KeyReader keys(object, prefix + ".", bad);
  const std::string old_type = keys.String("type", "");
  rope->type = keys.String("rope_type", old_type.empty() ? "default" : old_type);
  if (!old_type.empty() && rope->type != old_type) {
    keys.Refuse("type", "contradicts rope_type '" + rope->type + "'");
  }
  if (rope->type != "default" && rope->type != "linear" && rope->type != "llama3" &&
      rope->type != "yarn") {
    keys.Refuse(object.contains("rope_type") ? "rope_type" : "type",
                "supported: default, linear, llama3, yarn");
    return;
  }
  if (keys.Has("partial_rotary_factor") && keys.Number("partial_rotary_factor", 0, 1, 1) != 1) {
    keys.Refuse("partial_rotary_factor", "only 1 is supported");
  }
  if (rope->type == "default") return;
  rope->factor = keys.Number("factor", 1, 1e6, 1, true);
  if (rope->type == "linear") return;
  if (rope->type == "yarn") return ReadYarn(keys, rope);
  rope->low_freq_factor = keys.Number("low_freq_factor", 1e-3, 1e6, 1, true);
  rope->high_freq_factor = keys.Number("high_freq_factor", 1e-3, 1e6, 4, true);
  rope->original_max_position_embeddings =
      keys.Integer("original_max_position_embeddings", 1, 1 << 30, 1, true);
  if (rope->high_freq_factor <= rope->low_freq_factor) {
    keys.Refuse("high_freq_factor", "must be above low_freq_factor");
  }
}

bool SameRope(const RopeConfig& a, const RopeConfig& b) {
  return a.type == b.type && a.factor == b.factor && a.low_freq_factor == b.low_freq_factor &&
         a.high_freq_factor == b.high_freq_factor && a.beta_fast == b.beta_fast &&
         a.beta_slow == b.beta_slow && a.attention_factor == b.attention_factor &&
         a.original_max_position_embeddings == b.original_max_position_embeddings;
}

RopeConfig ReadRope(const json& root, std::vector<std::string>* bad) {
  KeyReader keys(root, "", bad);
  RopeConfig rope;
  const bool old_theta = keys.Has("rope_theta"), old_scaling = keys.Has("rope_scaling");
  rope.theta = keys.Number("rope_theta", 1, 1e12, 10000);
  if (old_scaling) ReadRopeScaling(root["rope_scaling"], "rope_scaling", bad, &rope);
  if (!keys.Has("rope_parameters")) return rope;
  RopeConfig named;
  ReadRopeScaling(root["rope_parameters"], "rope_parameters", bad, &named);
  if (!root["rope_parameters"].is_object()) return rope;
  KeyReader inner(root["rope_parameters"], "rope_parameters.", bad);
  named.theta = inner.Number("rope_theta", 1, 1e12, rope.theta, !old_theta);
  if (old_theta && named.theta != rope.theta) {
    inner.Refuse("rope_theta", "contradicts rope_theta " + root["rope_theta"].dump());
  }
  if (old_scaling && !SameRope(named, rope)) {
    keys.Refuse("rope_scaling", "contradicts rope_parameters; delete one of them");
  }
  return named;
}

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

std::string Join(const std::vector<std::string>& lines, const std::string& where) {
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + where + ": " + line;
  return text;
}

// Which share of pair i is interpolated: 0 for short waves, 1 for long ones.
struct YarnRamp {
  double low = 0, high = 1;
  float At(int64_t pair) const {
    const double width = low == high ? 1e-3 : high - low;
    return static_cast<float>(std::clamp((static_cast<double>(pair) - low) / width, 0.0, 1.0));
  }
};

YarnRamp RampOf(const RopeConfig& rope, int64_t head_dim) {
  const double d = static_cast<double>(head_dim);
  const double length = static_cast<double>(rope.original_max_position_embeddings);
  if (rope.type != "yarn") return {};
  const auto pair = [&](double rotations) {
    return d * std::log(length / (rotations * 2 * kPi)) / (2 * std::log(rope.theta));
  };
  return {std::max(std::floor(pair(rope.beta_fast)), 0.0),
          std::min(std::ceil(pair(rope.beta_slow)), d - 1)};
}

// An export names its base under base_model_type.
std::string FamilyOf(const json& root) {
  const auto text = [&root](const char* key) {
    return root.contains(key) && root[key].is_string() ? root[key].get<std::string>() : "";
  };
  const std::string type = text("model_type");
  return type == "hybrid_linear" ? text("base_model_type") : type;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim) {
  std::vector<float> frequencies;
  const YarnRamp ramp = RampOf(rope, head_dim);
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    float omega = 1.0f / static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent)));
    const auto factor = static_cast<float>(rope.factor);
    if (rope.type == "linear") omega /= factor;
    if (rope.type == "yarn") {
      const float share = ramp.At(i);
      omega = omega / factor * share + omega * (1 - share);
    }
    if (rope.type == "llama3") {
      const double length = static_cast<double>(rope.original_max_position_embeddings);
      const double wavelength = 2 * kPi / static_cast<double>(omega);
      if (wavelength > length / rope.low_freq_factor) {
        omega /= factor;
      } else if (wavelength >= length / rope.high_freq_factor) {
        const double smooth = (length / wavelength - rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
        omega = static_cast<float>((1 - smooth) * static_cast<double>(omega) / rope.factor +
                                   smooth * static_cast<double>(omega));
      }
    }
    frequencies.push_back(omega);
  }
  return frequencies;
}

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
  if (!violations.empty()) return InvalidArgument(Join(violations, where));
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
  std::vector<std::string> missing, wrong, unknown;
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
  for (std::vector<std::string>* kind : {&missing, &wrong, &unknown}) {
    const size_t total = kind->size();
    if (total > 10) {
      kind->resize(10);
      kind->push_back("... and " + std::to_string(total - 10) + " more of this kind");
    }
    lines.insert(lines.end(), kind->begin(), kind->end());
  }
  return lines.empty() ? Status::Ok() : InvalidArgument(Join(lines, model.directory()));
}

}  // namespace tandem
