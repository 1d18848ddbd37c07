#include "worker/agent/model_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/files.h"
#include "spec/recipes.h"

namespace tandem::agent {
namespace {

using Json = nlohmann::ordered_json;

int64_t IntegerAt(const Json& object, const char* key, int64_t otherwise) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : otherwise;
}

// A key that old exports lack keeps its default: they were made with it.
template <typename T>
void Take(const Json& hybrid, const char* pointer, T& value) {
  const Json::json_pointer at(pointer);
  if (hybrid.contains(at)) value = hybrid.at(at).get<T>();
}

void TakeRetained(const Json& hybrid, std::vector<RetainedGroup>& retained) {
  const Json::json_pointer at("/retain/kv_groups");
  if (!hybrid.contains(at)) return;
  for (const Json& pair : hybrid.at(at)) {
    retained.push_back({pair.at(0).get<int64_t>(), pair.at(1).get<int64_t>()});
  }
}

// worker/export writes these keys (config.json's "hybrid"). Throws what nlohmann throws.
void TakeHybrid(const Json& hybrid, ModelFolder& model) {
  AttentionPlan& attention = model.attention;
  Take(hybrid, "/mode", model.served_mode);
  Take(hybrid, "/window/kind", attention.window_kind);
  Take(hybrid, "/window/size", attention.window_size);
  Take(hybrid, "/window/sinks", attention.window_sinks);
  Take(hybrid, "/window/align_end", attention.window_align_end);
  Take(hybrid, "/linear/span", attention.linear_span);
  Take(hybrid, "/feature_map/kind", attention.feature_map_kind);
  attention.feature_map_two_sided = IsTwoSidedKind(attention.feature_map_kind);
  attention.feature_map_bias = IsBiasedKind(attention.feature_map_kind);
  Take(hybrid, "/feature_map/two_sided", attention.feature_map_two_sided);
  Take(hybrid, "/feature_map/bias", attention.feature_map_bias);
  Take(hybrid, "/feature_map/dim", attention.feature_dim);
  Take(hybrid, "/feature_map/tie_kv_heads", attention.tie_kv_heads);
  Take(hybrid, "/mixing/kind", attention.mixing_kind);
  Take(hybrid, "/mixing/factor", attention.mixing_factor);
  Take(hybrid, "/mixing/affine", attention.mixing_affine);
  Take(hybrid, "/mixing/window_gain", attention.window_gain);
  Take(hybrid, "/cache/size", attention.cache_size);
  Take(hybrid, "/compat", attention.compat);
  TakeRetained(hybrid, attention.retained);
}

}  // namespace

Result<ModelFolder> ReadModelFolder(const std::string& folder) {
  const std::string path = JoinPath(folder, "config.json");
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
  const Json config = Json::parse(text, nullptr, false);
  if (!config.is_object()) return InvalidArgument(path + " is not a JSON object");
  ModelFolder model;
  const int64_t heads = IntegerAt(config, "num_attention_heads", 0);
  model.num_layers = IntegerAt(config, "num_hidden_layers", 0);
  model.num_kv_heads = IntegerAt(config, "num_key_value_heads", heads);
  // head_dim, or hidden_size / num_attention_heads as older configs mean it.
  model.head_dim = IntegerAt(config, "head_dim", 0);
  if (model.head_dim <= 0 && heads > 0) {
    model.head_dim = IntegerAt(config, "hidden_size", 0) / heads;
  }
  if (model.head_dim <= 0) {
    return InvalidArgument(path +
                           " names neither head_dim nor hidden_size and num_attention_heads");
  }
  model.is_converted = config.value("model_type", Json()) == "hybrid_linear";
  if (!model.is_converted) return model;
  try {
    TakeHybrid(config.at("hybrid"), model);
  } catch (const Json::exception& e) {
    return InvalidArgument(path + ": \"hybrid\" is not as Tandem writes it: " + e.what());
  }
  return model;
}

Result<std::vector<RetainedGroup>> RetainedGroupsOf(const std::vector<std::string>& texts,
                                                    const ModelFolder& model) {
  std::vector<std::pair<int64_t, int64_t>> pairs;
  for (const std::string& text : texts) {
    const auto retained = ReadRetainedText(text);
    const bool known = retained && retained->layer < model.num_layers &&
                       retained->group.value_or(0) < model.num_kv_heads;
    if (!known) {
      return InvalidArgument("attention.retain.kv_groups holds \"" + text + "\"; the model has " +
                             std::to_string(model.num_layers) + " layers of " +
                             std::to_string(model.num_kv_heads) + " groups, counted from 0");
    }
    for (int64_t group = 0; group < model.num_kv_heads; ++group) {
      if (retained->group.value_or(group) == group) pairs.emplace_back(retained->layer, group);
    }
  }
  std::sort(pairs.begin(), pairs.end());
  pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
  std::vector<RetainedGroup> groups;
  for (const auto& [layer, group] : pairs) groups.push_back({layer, group});
  return groups;
}

}  // namespace tandem::agent
