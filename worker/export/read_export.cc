#include "worker/export/read_export.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/files.h"
#include "worker/export/weights.h"
#include "worker/plan/plan.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr int64_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kMaxSize = int64_t{1} << 30;

// One object of "hybrid"; every key that is read is known, the others are faults.
class HybridKeys {
 public:
  HybridKeys(const json& object, std::string path, std::vector<std::string>* faults)
      : object_(object), path_(std::move(path)), faults_(faults) {
    if (!object.is_object())
      faults->push_back(path_ + " is " + object.dump() + "; must be an object");
  }

  json Object(const char* key) { return Has(key) ? object_[key] : json::object(); }

  int64_t Integer(const char* key, int64_t low, int64_t absent) {
    if (!Has(key)) return absent;
    const json& value = object_[key];
    if (value.is_number_integer() && value >= low && value <= kMaxSize) return value;
    Refuse(key,
           "must be an integer in [" + std::to_string(low) + ", " + std::to_string(kMaxSize) + "]");
    return absent;
  }
  double Positive(const char* key, double absent) {
    if (!Has(key)) return absent;
    if (object_[key].is_number() && object_[key] > 0) return object_[key];
    Refuse(key, "must be a number above 0");
    return absent;
  }
  bool Flag(const char* key, bool absent = false) {
    if (!Has(key)) return absent;
    if (object_[key].is_boolean()) return object_[key];
    Refuse(key, "must be true or false");
    return absent;
  }
  // The first word is what an absent key means.
  std::string Word(const char* key, const std::vector<std::string>& words) {
    if (!Has(key)) return words.front();
    const json& value = object_[key];
    if (value.is_string() &&
        std::find(words.begin(), words.end(), value.get<std::string>()) != words.end())
      return value;
    std::string list;
    for (const std::string& word : words) list += (list.empty() ? "" : ", ") + word;
    Refuse(key, "must be one of " + list);
    return words.front();
  }
  json List(const char* key) {
    if (!Has(key)) return json::array();
    if (object_[key].is_array()) return object_[key];
    Refuse(key, "must be a list");
    return json::array();
  }
  void Refuse(const std::string& key, const std::string& allowed) {
    faults_->push_back(path_ + "." + key + " is " + object_[key].dump() + "; " + allowed);
  }
  // After the last key.
  void RefuseOthers() {
    if (!object_.is_object()) return;
    for (const auto& [key, value] : object_.items()) {
      if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
        Refuse(key, "this version of Tandem does not know the key");
      }
    }
  }

 private:
  bool Has(const char* key) {
    known_.emplace_back(key);
    return object_.is_object() && object_.contains(key) && !object_[key].is_null();
  }
  const json object_;
  const std::string path_;
  std::vector<std::string>* faults_;
  std::vector<std::string> known_;
};

// [[layer, group], ...] by layer.
std::vector<LayerRetention> Retained(HybridKeys& keys, const ModelConfig& base) {
  std::vector<LayerRetention> retained;
  for (const json& pair : keys.List("kv_groups")) {
    const bool is_pair = pair.is_array() && pair.size() == 2 && pair[0].is_number_integer() &&
                         pair[1].is_number_integer();
    if (!is_pair || pair[0] < 0 || pair[0] >= base.num_layers || pair[1] < 0 ||
        pair[1] >= base.num_kv_heads) {
      keys.Refuse("kv_groups", "must be pairs [layer below " + std::to_string(base.num_layers) +
                                   ", group below " + std::to_string(base.num_kv_heads) + "]");
      return {};
    }
    retained.resize(static_cast<size_t>(base.num_layers));
    LayerRetention& layer = retained[pair[0].get<size_t>()];
    const int64_t group = pair[1];
    if (std::find(layer.begin(), layer.end(), group) == layer.end()) layer.push_back(group);
    std::sort(layer.begin(), layer.end());
  }
  return retained;
}

ComponentMode ServedModeOf(const std::string& word) {
  if (word == "linear_only") return ComponentMode::kLinearOnly;
  return word == "window_only" ? ComponentMode::kWindowOnly : ComponentMode::kHybrid;
}

void ReadWindowAndMap(HybridKeys& hybrid, std::vector<std::string>* faults, ConvertedForm* form) {
  HybridKeys window(hybrid.Object("window"), "hybrid.window", faults);
  form->attention.window_kind = WindowKindFromWord(window.Word("kind", {"sliding", "terraced"}));
  form->attention.window = window.Integer("size", 1, 64);
  form->attention.sinks = window.Integer("sinks", 0, 0);
  form->attention.align_end = window.Flag("align_end");
  window.RefuseOthers();
  HybridKeys linear(hybrid.Object("linear"), "hybrid.linear", faults);
  form->attention.span =
      linear.Word("span", {"outside", "all"}) == "all" ? Span::kAll : Span::kOutside;
  linear.RefuseOthers();
  HybridKeys map(hybrid.Object("feature_map"), "hybrid.feature_map", faults);
  const std::string kind = map.Word("kind", {"hedgehog", "exp", "exp_shifted", "relu", "elu"});
  form->parameters.feature_map = form->attention.map = FeatureMapKindFromWord(kind);
  form->attention.two_sided = map.Flag("two_sided", IsTwoSidedKind(kind));
  form->parameters.feature_map_bias = map.Flag("bias", IsBiasedKind(kind));
  form->parameters.feature_dim = map.Integer("dim", 1, 64);
  form->parameters.tie_kv_heads = map.Flag("tie_kv_heads");
  map.RefuseOthers();
}

void ReadMixing(HybridKeys& hybrid, std::vector<std::string>* faults, ConvertedForm* form) {
  HybridKeys mixing(hybrid.Object("mixing"), "hybrid.mixing", faults);
  form->attention.mixing = MixingFromWord(mixing.Word("kind", {"shared", "mass"}));
  form->parameters.mixing_factor = mixing.Word("factor", {"sigmoid", "exp"});
  form->attention.affine = mixing.Flag("affine");
  form->attention.window_gain = mixing.Positive("window_gain", 1);
  mixing.RefuseOthers();
}

// The base's own config: what transformers' class of that family would have.
Result<ModelConfig> BaseConfig(json root, const std::string& where) {
  if (!root.contains("base_model_type") || !root["base_model_type"].is_string()) {
    return InvalidArgument(where + ": base_model_type is absent; export the model again");
  }
  root["model_type"] = root["base_model_type"];
  for (const char* key : {"hybrid", "auto_map", "architectures", "base_model_type"})
    root.erase(key);
  return ParseModelConfig(root.dump(), where);
}

json ParseObject(const std::string& text) {
  return json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

Result<ConvertedForm> ParseConvertedForm(const std::string& text, const ModelConfig& base,
                                         const std::string& where) {
  const json root = ParseObject(text);
  if (!root.is_object() || !root.contains("hybrid")) {
    return InvalidArgument(where + ": the object \"hybrid\" is absent; this is no converted model");
  }
  std::vector<std::string> faults;
  ConvertedForm form;
  HybridKeys hybrid(root["hybrid"], "hybrid", &faults);
  if (hybrid.Integer("version", 0, 1) != 1) hybrid.Refuse("version", "this Tandem reads version 1");
  form.mode = ServedModeOf(hybrid.Word("mode", {"hybrid", "linear_only", "window_only"}));
  ReadWindowAndMap(hybrid, &faults, &form);
  ReadMixing(hybrid, &faults, &form);
  HybridKeys retain(hybrid.Object("retain"), "hybrid.retain", &faults);
  form.attention.retained = Retained(retain, base);
  retain.RefuseOthers();
  HybridKeys cache(hybrid.Object("cache"), "hybrid.cache", &faults);
  form.attention.cache_size = cache.Integer("size", 0, 0);
  cache.RefuseOthers();
  form.attention.lolcats_defect = hybrid.Word("compat", {"none", "lolcats"}) == "lolcats";
  hybrid.RefuseOthers();
  if (faults.empty()) return form;
  std::string message = where + ": " + faults.front();
  for (size_t i = 1; i < faults.size(); ++i) message += "\n" + where + ": " + faults[i];
  return InvalidArgument(message);
}

bool IsConvertedModel(const std::string& folder) {
  const auto text = ReadFile(JoinPath(folder, "config.json"), kMaxConfigBytes);
  if (!text.ok()) return false;
  const json root = ParseObject(*text);
  return root.is_object() && root.contains("hybrid");
}

Result<ConvertedModel> ReadConvertedModel(const std::string& folder, const ComputeDevice& device) {
  const std::string path = JoinPath(folder, "config.json");
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  const json root = ParseObject(text);
  if (!root.is_object()) return InvalidArgument(path + " is not a JSON object");
  TANDEM_ASSIGN_OR_RETURN(const ModelConfig base, BaseConfig(root, path));
  ConvertedModel converted;
  TANDEM_ASSIGN_OR_RETURN(converted.form, ParseConvertedForm(text, base, path));
  TANDEM_ASSIGN_OR_RETURN(ExportedWeights weights,
                          ReadExportWeights(folder, base, converted.form.parameters, device));
  converted.model = std::move(weights.model);
  converted.parameters = std::move(weights.parameters);
  return converted;
}

}  // namespace tandem
