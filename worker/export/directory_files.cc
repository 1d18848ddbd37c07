#include "worker/export/directory_files.h"

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/files.h"
#include "worker/model/model_digest.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

constexpr const char* kClassFiles[] = {
    "attention_hybrid_linear.py", "cache_hybrid_linear.py", "configuration_hybrid_linear.py",
    "feature_maps_hybrid_linear.py", "modeling_hybrid_linear.py"};
constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "tokenizer.model",
                                           "chat_template.jinja",
                                           "chat_template.json",
                                           "generation_config.json"};
constexpr int64_t kMaxCopiedBytes = int64_t{1} << 30;

std::string Dump(const ordered_json& root) {
  return root.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

ordered_json Parse(const std::string& text) {
  return ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
}

Status CopyFile(const std::string& from_folder, const std::string& name,
                const std::string& to_folder) {
  TANDEM_ASSIGN_OR_RETURN(const std::string bytes,
                          ReadFile(JoinPath(from_folder, name), kMaxCopiedBytes));
  return WriteFileDurably(JoinPath(to_folder, name), bytes);
}

ordered_json RopeParameters(const RopeConfig& rope) {
  ordered_json out = {{"rope_type", rope.type}, {"rope_theta", rope.theta}};
  if (rope.type != "default") out["factor"] = rope.factor;
  if (rope.type == "yarn") {
    out["beta_fast"] = rope.beta_fast;
    out["beta_slow"] = rope.beta_slow;
    out["attention_factor"] = rope.attention_factor;
    out["original_max_position_embeddings"] = rope.original_max_position_embeddings;
  }
  if (rope.type == "llama3") {
    out["low_freq_factor"] = rope.low_freq_factor;
    out["high_freq_factor"] = rope.high_freq_factor;
    out["original_max_position_embeddings"] = rope.original_max_position_embeddings;
  }
  return out;
}

ordered_json HybridObject(const Plan& plan) {
  const AttentionPlan& attention = plan.attention;
  ordered_json hybrid = {{"version", 1}, {"mode", plan.served_mode}};
  hybrid["window"] = {{"kind", attention.window_kind},
                      {"size", attention.window_size},
                      {"sinks", attention.window_sinks},
                      {"align_end", attention.window_align_end}};
  hybrid["linear"] = {{"span", attention.linear_span}};
  hybrid["feature_map"] = {{"kind", attention.feature_map_kind},
                           {"dim", attention.feature_dim},
                           {"two_sided", attention.feature_map_two_sided},
                           {"bias", attention.feature_map_bias},
                           {"tie_kv_heads", attention.tie_kv_heads}};
  hybrid["mixing"] = {{"kind", attention.mixing_kind},
                      {"factor", attention.mixing_factor},
                      {"affine", attention.mixing_affine},
                      {"window_gain", attention.window_gain}};
  ordered_json groups = ordered_json::array();
  for (const RetainedGroup& kept : attention.retained) {
    groups.push_back(ordered_json::array({kept.layer, kept.group}));
  }
  hybrid["retain"] = {{"kv_groups", groups}};
  hybrid["cache"] = {{"size", attention.cache_size}};
  hybrid["compat"] = attention.compat;
  return hybrid;
}

// transformers 4 cannot load the spelling of transformers 5, nor guess an absent class.
Status CopyTokenizerConfig(const Plan& plan, const std::string& folder) {
  const std::string name = "tokenizer_config.json";
  const std::string path = JoinPath(plan.model, name);
  ordered_json root = ordered_json::object();
  if (PathExists(path)) {
    TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxCopiedBytes));
    root = Parse(text);
    if (!root.is_object()) return InvalidArgument(path + " is not a JSON object");
    const ordered_json known = root.contains("tokenizer_class") ? root["tokenizer_class"] : nullptr;
    if (!known.is_null() && known != "TokenizersBackend") {
      return WriteFileDurably(JoinPath(folder, name), text);
    }
  }
  root["tokenizer_class"] = "PreTrainedTokenizerFast";
  return WriteFileDurably(JoinPath(folder, name), Dump(root));
}

bool IsLicence(const std::string& name) {
  return name.starts_with("LICENSE") || name.starts_with("LICENCE") || name.starts_with("NOTICE") ||
         name.starts_with("USE_POLICY");
}

// Every file in the folder and in its folders, by the path from it, in order.
Result<std::vector<std::string>> ListTree(const std::string& folder) {
  TANDEM_ASSIGN_OR_RETURN(const auto names, ListFolder(folder));
  std::vector<std::string> paths;
  for (const std::string& name : names) {
    if (!IsFolder(JoinPath(folder, name))) {
      paths.push_back(name);
      continue;
    }
    TANDEM_ASSIGN_OR_RETURN(const auto inner, ListTree(JoinPath(folder, name)));
    for (const std::string& path : inner) paths.push_back(name + "/" + path);
  }
  return paths;
}

// What the evaluation found, without what differs from run to run.
ordered_json Results(const std::string& report_json) {
  ordered_json report = Parse(report_json);
  if (!report.is_object()) return nullptr;
  report.erase("seconds");
  return report;
}

}  // namespace

Result<std::string> ExportConfigJson(const std::string& base_json, const ModelConfig& config,
                                     const Plan& plan) {
  ordered_json root = Parse(base_json);
  if (!root.is_object()) return InvalidArgument(plan.model + "/config.json is not a JSON object");
  for (const char* key : {"_name_or_path", "layer_types", "max_window_layers",
                          "quantization_config", "sliding_window", "use_sliding_window"}) {
    root.erase(key);
  }
  root["architectures"] = {"HybridLinearForCausalLM"};
  root["model_type"] = "hybrid_linear";
  root["base_model_type"] = config.model_type;
  root["auto_map"] = {{"AutoConfig", "configuration_hybrid_linear.HybridLinearConfig"},
                      {"AutoModel", "modeling_hybrid_linear.HybridLinearModel"},
                      {"AutoModelForCausalLM", "modeling_hybrid_linear.HybridLinearForCausalLM"}};
  root["num_key_value_heads"] = config.num_kv_heads;
  root["head_dim"] = config.head_dim;
  root["attention_bias"] = config.output_bias;  // Qwen2's on q, k, v come with its name
  root["mlp_bias"] = config.mlp_bias;
  root["tie_word_embeddings"] = config.tie_word_embeddings;
  root["rms_norm_eps"] = config.rms_norm_eps;
  const ordered_json rope = RopeParameters(config.rope);
  root["rope_theta"] = config.rope.theta;
  root["rope_parameters"] = rope;
  root["rope_scaling"] = nullptr;
  if (config.rope.type != "default") {
    root["rope_scaling"] = rope;
    root["rope_scaling"].erase("rope_theta");
  }
  root["torch_dtype"] = plan.export_dtype;
  root["dtype"] = plan.export_dtype;
  root["hybrid"] = HybridObject(plan);
  return Dump(root);
}

Status CopyBaseFiles(const Plan& plan, const std::string& folder) {
  if (plan.export_classes.empty()) {
    return FailedPrecondition(
        "the plan's export_classes is empty; the folder of configuration_hybrid_linear.py is "
        "needed");
  }
  for (const char* name : kClassFiles) {
    TANDEM_RETURN_IF_ERROR(CopyFile(plan.export_classes, name, folder));
  }
  for (const char* name : kTokenizerFiles) {
    if (!PathExists(JoinPath(plan.model, name))) continue;
    TANDEM_RETURN_IF_ERROR(CopyFile(plan.model, name, folder));
  }
  TANDEM_ASSIGN_OR_RETURN(const auto names, ListFolder(plan.model));
  for (const std::string& name : names) {
    if (!IsLicence(name) || IsFolder(JoinPath(plan.model, name))) continue;
    TANDEM_RETURN_IF_ERROR(CopyFile(plan.model, name, folder));
  }
  return CopyTokenizerConfig(plan, folder);
}

Result<std::string> ExportManifestJson(const Plan& plan, const std::string& report_json,
                                       const std::string& folder) {
  ordered_json root = {{"version", 1},
                       {"job", plan.job_name},
                       {"uid", plan.job_uid},
                       {"seed", plan.seed},
                       {"spec_sha256", plan.spec_sha256}};
  const ordered_json spec = Parse(plan.spec_json);
  root["spec"] = spec.is_discarded() ? ordered_json(nullptr) : spec;
  root["mode"] = plan.served_mode;
  root["dtype"] = plan.export_dtype;
  TANDEM_ASSIGN_OR_RETURN(const ModelDigest base, DigestModel(plan.model));
  root["base"] = {{"name", plan.model.substr(plan.model.find_last_of('/') + 1)},
                  {"sha256", base.sha256},
                  {"files", base.files}};
  const std::string tokens = JoinPath(plan.data.tokens, "manifest.json");
  root["data"] = ordered_json::object();
  if (PathExists(tokens)) {
    TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(tokens));
    const ordered_json manifest = Parse(text);
    root["data"]["manifest_sha256"] = Sha256Hex(text);
    for (const char* key : {"tokenizer_sha256", "sources", "documents", "tokens"}) {
      if (manifest.is_object() && manifest.contains(key)) root["data"][key] = manifest[key];
    }
  }
  root["results"] = Results(report_json);
  TANDEM_ASSIGN_OR_RETURN(const auto names, ListTree(folder));
  ordered_json files = ordered_json::object();
  for (const std::string& name : names) {
    if (name == "manifest.json") continue;
    TANDEM_ASSIGN_OR_RETURN(const std::string sha256, Sha256OfFile(JoinPath(folder, name)));
    files[name] = sha256;
  }
  root["files"] = std::move(files);
  return Dump(root);
}

}  // namespace tandem
