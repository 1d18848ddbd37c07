#include "worker/plan/plan.h"

#include "worker/plan/strict_json.h"

namespace tandem {
namespace {

constexpr int64_t kMaxSteps = 10'000'000;
constexpr int64_t kMaxTokens = 1 << 24;
constexpr size_t kMaxStages = 64;
constexpr size_t kMaxRetained = 1 << 16;
const TextRule kPath = {.absolute_path = true};
const TextRule kOptionalPath = {.may_be_empty = true, .absolute_path = true};
const TextRule kFreeText = {.may_be_empty = true};

TextRule OneOf(std::vector<std::string> allowed) {
  return {.allowed = std::move(allowed)};
}

const std::vector<std::string> kModes = {"hybrid", "linear_only", "window_only"};

// Each Walk… names a struct's fields once, for JsonWriter (const struct) and JsonReader alike.
struct WalkRetained {
  template <typename Fields, typename T>
  void operator()(Fields& fields, T& retained) const {
    fields.Integer("layer", retained.layer, {0, 4096});
    fields.Integer("group", retained.group, {0, 4096});
  }
};

struct WalkAttention {
  template <typename Fields, typename T>
  void operator()(Fields& fields, T& attention) const {
    fields.Text("feature_map_kind", attention.feature_map_kind,
                OneOf({"hedgehog", "exp", "exp_shifted", "relu", "elu"}));
    fields.Integer("feature_dim", attention.feature_dim, {1, 4096});
    fields.Flag("feature_map_two_sided", attention.feature_map_two_sided);
    fields.Flag("feature_map_bias", attention.feature_map_bias);
    fields.Flag("tie_kv_heads", attention.tie_kv_heads);
    fields.Text("window_kind", attention.window_kind, OneOf({"sliding", "terraced"}));
    fields.Integer("window_size", attention.window_size, {1, kMaxTokens});
    fields.Integer("window_sinks", attention.window_sinks, {0, 1024});
    fields.Flag("window_align_end", attention.window_align_end);
    fields.Text("max_grad", attention.max_grad, OneOf({"through", "detach"}));
    fields.Text("linear_span", attention.linear_span, OneOf({"outside", "all"}));
    fields.Text("mixing_factor", attention.mixing_factor, OneOf({"sigmoid", "exp"}));
    fields.Real("mixing_initial", attention.mixing_initial, {0, 100, true});
    fields.Text("mixing_kind", attention.mixing_kind, OneOf({"shared", "mass"}));
    fields.Flag("mixing_affine", attention.mixing_affine);
    fields.Real("window_gain", attention.window_gain, {0, 1e4, true});
    fields.Integer("cache_size", attention.cache_size, {0, 65536});
    fields.Text("compat", attention.compat, OneOf({"none", "lolcats"}));
    fields.Objects("retained", attention.retained, kMaxRetained, WalkRetained{});
    fields.Integer("retain_auto", attention.retain_auto, {0, 4096});
  }
};

struct WalkStage {
  template <typename Fields, typename T>
  void operator()(Fields& fields, T& stage) const {
    fields.Text("kind", stage.kind, OneOf({"attention_transfer", "finetune"}));
    fields.Text("objective", stage.objective,
                OneOf({"weights", "outputs", "hybrid_outputs", "hybrid_weights", "mixture"}));
    fields.Real("mixture_weights", stage.mixture_weights, {0, 1e6});
    fields.Real("mixture_outputs", stage.mixture_outputs, {0, 1e6});
    fields.Real("mixture_hybrid_outputs", stage.mixture_hybrid_outputs, {0, 1e6});
    fields.Text("mode", stage.mode, OneOf(kModes));
    fields.Integer("steps", stage.steps, {1, kMaxSteps});
    fields.Integer("batch_size", stage.batch_size, {1, 65536});
    fields.Real("learning_rate", stage.learning_rate, {0, 1, true});
    fields.Integer("warmup_steps", stage.warmup_steps, {0, kMaxSteps});
    fields.Text("loss", stage.loss, OneOf({"next_token", "distill", "mixture"}));
    fields.Real("distill_weight", stage.distill_weight, {0, 1, true});
    fields.Flag("train_maps", stage.train_maps);
    fields.Flag("train_factor", stage.train_factor);
    fields.Real("clip_norm", stage.clip_norm, {0, 1e6, false});
    fields.Integer("lora_rank", stage.lora_rank, {1, 512});
    fields.Real("lora_alpha", stage.lora_alpha, {0, 4096, true});
    fields.Texts("lora_targets", stage.lora_targets,
                 OneOf({"q_proj", "k_proj", "v_proj", "o_proj"}));
    fields.Reals("ssd_schedule", stage.ssd_schedule, {0, 1, false});
    fields.Text("ssd_granularity", stage.ssd_granularity, OneOf({"micro_batch", "layer", "row"}));
    fields.Text("ssd_dropped_span", stage.ssd_dropped_span, OneOf({"all", "outside"}));
    fields.Integers("ssd_window_schedule", stage.ssd_window_schedule, {1, kMaxTokens});
    fields.Text("stop_component", stage.stop_component,
                OneOf({"none", "hybrid", "window_only", "linear_only"}));
    fields.Real("stop_slack", stage.stop_slack, {0, 100});
    fields.Integer("stop_patience", stage.stop_patience, {0, 1'000'000});
    fields.Real("stop_min_gain", stage.stop_min_gain, {0, 0.5});
    fields.Integer("stop_every", stage.stop_every, {1, kMaxSteps});
    fields.Integer("stop_sequences", stage.stop_sequences, {1, 65536});
  }
};

struct WalkData {
  template <typename Fields, typename T>
  void operator()(Fields& fields, T& data) const {
    fields.Text("tokens", data.tokens, kPath);
    fields.Integer("sequence_length", data.sequence_length, {2, kMaxTokens});
    fields.Flag("document_mask", data.document_mask);
  }
};

struct WalkEvaluate {
  template <typename Fields, typename T>
  void operator()(Fields& fields, T& evaluate) const {
    fields.Integer("sequences", evaluate.sequences, {2, 65536});
    fields.Integer("sinks", evaluate.sinks, {1, 1024});
    fields.Integer("bootstrap", evaluate.bootstrap, {1, 100000});
    fields.Flag("passkey", evaluate.passkey);
    fields.Flag("long_range", evaluate.long_range);
    fields.Flag("suites", evaluate.suites);
    fields.Texts("suite_modes", evaluate.suite_modes,
                 OneOf({"softmax", "hybrid", "window_only", "linear_only"}));
    fields.Integers("lengths", evaluate.lengths, {2, kMaxTokens});
    fields.Text("control", evaluate.control, kOptionalPath);
  }
};

template <typename Fields, typename T>
void WalkPlan(Fields& fields, T& plan) {
  fields.Text("job_uid", plan.job_uid, {});
  fields.Text("job_name", plan.job_name, {});
  fields.Integer("epoch", plan.epoch, {1});
  fields.Unsigned("seed", plan.seed);
  fields.Text("recipe", plan.recipe, kFreeText);
  fields.Text("model", plan.model, kPath);
  fields.Text("converted", plan.converted, kOptionalPath);
  fields.Text("served_mode", plan.served_mode, OneOf(kModes));
  fields.Text("device", plan.device, OneOf({"cpu", "cuda"}));
  fields.Text("base_dtype", plan.base_dtype, OneOf({"float32", "bfloat16"}));
  fields.Text("job_folder", plan.job_folder, kPath);
  fields.Text("attempt_folder", plan.attempt_folder, kPath);
  fields.Text("socket", plan.socket, kOptionalPath);
  fields.Text("resume_from", plan.resume_from, kOptionalPath);
  fields.Text("spec_sha256", plan.spec_sha256, kFreeText);
  fields.Text("spec_json", plan.spec_json, kFreeText);
  fields.Integer("ranks", plan.ranks, {1, 4096});
  fields.Integer("threads_per_rank", plan.threads_per_rank, {1, 1024});
  fields.Object("attention", plan.attention, WalkAttention{});
  fields.Object("data", plan.data, WalkData{});
  fields.Objects("stages", plan.stages, kMaxStages, WalkStage{});
  fields.Object("evaluate", plan.evaluate, WalkEvaluate{});
  fields.Text("export_dtype", plan.export_dtype, OneOf({"float32", "bfloat16"}));
  fields.Flag("export_adapter", plan.export_adapter);
  fields.Flag("export_delta", plan.export_delta);
  fields.Integer("export_max_shard_mb", plan.export_max_shard_mb, {1, 1'000'000});
  fields.Text("stage_cache", plan.stage_cache, kOptionalPath);
  fields.Text("export_classes", plan.export_classes, kOptionalPath);
  fields.Integer("checkpoint_every_steps", plan.checkpoint_every_steps, {0, kMaxSteps});
  fields.Real("checkpoint_every_seconds", plan.checkpoint_every_seconds, {0, 86400, false});
  fields.Integer("checkpoint_keep", plan.checkpoint_keep, {1, 1000});
}

void CheckStage(const Plan& plan, const StagePlan& stage, const std::string& path,
                std::vector<std::string>& violations) {
  if (stage.kind != "finetune") return;
  for (const int64_t size : stage.ssd_window_schedule) {
    if (size <= plan.attention.window_size) continue;
    violations.push_back(path + "ssd_window_schedule holds " + std::to_string(size) +
                         "; must be at most attention.window_size, which is " +
                         std::to_string(plan.attention.window_size));
  }
  if (stage.mode != "hybrid" && !(stage.ssd_schedule.empty() && stage.ssd_window_schedule.empty()))
    violations.push_back(path + "ssd_schedule or ssd_window_schedule is given with mode " +
                         stage.mode + "; only hybrid has a window to change");
}

// Rules between fields.
void CheckTogether(const Plan& plan, std::vector<std::string>& violations) {
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const StagePlan& stage = plan.stages[i];
    const std::string path = "stages[" + std::to_string(i) + "].";
    if (plan.ranks > 0 && stage.batch_size % plan.ranks != 0) {
      violations.push_back(path + "batch_size is " + std::to_string(stage.batch_size) +
                           "; must be a multiple of ranks, which is " + std::to_string(plan.ranks));
    }
    if (stage.kind == "finetune" && stage.lora_targets.empty() && !stage.train_maps &&
        !stage.train_factor) {
      violations.push_back(path +
                           "lora_targets is empty and train_maps is false; nothing would train");
    }
    CheckStage(plan, stage, path, violations);
  }
  if (!plan.attention.retained.empty() && plan.attention.retain_auto > 0) {
    violations.push_back("attention.retain_auto is " + std::to_string(plan.attention.retain_auto) +
                         " beside attention.retained; one of the two");
  }
  if (plan.base_dtype == "bfloat16" && plan.device != "cuda") {
    violations.push_back("base_dtype is bfloat16; that needs device cuda");
  }
  if (!plan.converted.empty() && !plan.stages.empty()) {
    violations.push_back("converted is given beside stages; a converted model is only measured");
  }
}

Status AllViolations(const std::vector<std::string>& violations) {
  std::string text;
  for (const std::string& violation : violations) text += (text.empty() ? "" : "\n") + violation;
  return InvalidArgument(text);
}

}  // namespace

bool IsTwoSidedKind(const std::string& feature_map_kind) {
  return feature_map_kind != "relu" && feature_map_kind != "elu";
}

bool IsBiasedKind(const std::string& feature_map_kind) {
  return feature_map_kind == "relu";
}

std::string PlanToJson(const Plan& plan) {
  nlohmann::ordered_json out;
  JsonWriter writer(out);
  out["version"] = plan.version;
  WalkPlan(writer, plan);
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<Plan> PlanFromJson(const std::string& json) {
  const auto parsed = nlohmann::ordered_json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return InvalidArgument("the plan is not JSON");
  std::vector<std::string> violations;
  Plan plan;
  JsonReader reader(parsed, "", violations);
  int64_t version = kPlanVersion;
  reader.Integer("version", version, {kPlanVersion, kPlanVersion});
  WalkPlan(reader, plan);
  reader.RefuseUnknown();
  CheckTogether(plan, violations);
  if (!violations.empty()) return AllViolations(violations);
  return plan;
}

}  // namespace tandem
