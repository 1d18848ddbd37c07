#include "worker/agent/plan_builder.h"

#include <nlohmann/json.hpp>

#include "spec/recipes.h"
#include "spec/spec.h"
#include "worker/agent/model_folder.h"

namespace tandem::agent {
namespace {

using Json = nlohmann::ordered_json;

AttentionPlan AttentionOf(const v1::AttentionSpec& spec) {
  AttentionPlan plan;
  plan.feature_map_kind = spec.feature_map().kind();
  plan.feature_dim = spec.feature_map().dim();
  plan.feature_map_two_sided = spec.feature_map().two_sided();
  plan.feature_map_bias = spec.feature_map().bias();
  plan.window_kind = spec.window().kind();
  plan.window_size = spec.window().size();
  plan.window_sinks = spec.window().sinks();
  plan.window_align_end = spec.window().align_end();
  plan.max_grad = spec.window().max_grad();
  plan.linear_span = spec.linear().span();
  plan.mixing_factor = spec.mixing().factor();
  plan.mixing_initial = spec.mixing().initial();
  plan.tie_kv_heads = spec.feature_map().tie_kv_heads();
  plan.mixing_kind = spec.mixing().kind();
  plan.mixing_affine = spec.mixing().affine();
  plan.window_gain = spec.mixing().window_gain();
  plan.cache_size = spec.cache().size();
  plan.compat = spec.compat();
  plan.retain_auto = spec.retain().auto_();
  return plan;
}

StagePlan StageOf(const v1::AttentionTransferSpec& spec) {
  StagePlan plan;
  plan.kind = "attention_transfer";
  plan.objective = spec.objective();
  plan.steps = spec.steps();
  plan.batch_size = spec.batch_size();
  plan.learning_rate = spec.learning_rate();
  plan.warmup_steps = spec.warmup_steps();
  plan.mixture_weights = spec.mixture().weights();
  plan.mixture_outputs = spec.mixture().outputs();
  plan.mixture_hybrid_outputs = spec.mixture().hybrid_outputs();
  plan.stop_patience = spec.early_stop().patience();
  plan.stop_every = spec.early_stop().every_steps();
  plan.stop_min_gain = spec.early_stop().min_gain();
  plan.stop_sequences = spec.early_stop().sequences();
  return plan;
}

StagePlan StageOf(const v1::FinetuneSpec& spec) {
  StagePlan plan;
  plan.kind = "finetune";
  plan.mode = spec.mode();
  plan.steps = spec.steps();
  plan.batch_size = spec.batch_size();
  plan.learning_rate = spec.learning_rate();
  plan.warmup_steps = spec.warmup_steps();
  plan.loss = spec.objective();
  plan.distill_weight = spec.distill_weight();
  plan.train_maps = spec.train_maps();
  plan.train_factor = spec.train_factor();
  plan.clip_norm = spec.clip_norm();
  plan.lora_rank = spec.lora().rank();
  plan.lora_alpha = spec.lora().alpha();
  plan.lora_targets.assign(spec.lora().targets().begin(), spec.lora().targets().end());
  plan.ssd_schedule.assign(spec.ssd().schedule().begin(), spec.ssd().schedule().end());
  if (spec.ssd().has_granularity()) plan.ssd_granularity = spec.ssd().granularity();
  if (spec.ssd().has_dropped_span()) plan.ssd_dropped_span = spec.ssd().dropped_span();
  plan.ssd_window_schedule.assign(spec.ssd().window_schedule().begin(),
                                  spec.ssd().window_schedule().end());
  plan.stop_component = spec.early_stop().component();
  plan.stop_every = spec.early_stop().every_steps();
  plan.stop_slack = spec.early_stop().slack();
  plan.stop_sequences = spec.early_stop().sequences();
  return plan;
}

std::vector<StagePlan> StagesOf(const v1::JobSpec& spec) {
  std::vector<StagePlan> stages;
  for (const v1::StageSpec& stage : spec.stages()) {
    stages.push_back(stage.has_attention_transfer() ? StageOf(stage.attention_transfer())
                                                    : StageOf(stage.finetune()));
  }
  return stages;
}

void SetContext(const PlanContext& context, Plan& plan) {
  plan.job_uid = context.job_uid;
  plan.job_name = context.job_name;
  plan.epoch = context.epoch;
  plan.job_folder = context.job_folder;
  plan.attempt_folder = context.attempt_folder;
  plan.socket = context.socket;
  plan.data.tokens = context.tokens;
  plan.resume_from = context.resume_from;
  plan.export_classes = context.export_classes;
  plan.stage_cache = context.stage_cache;
}

// The model's config.json decides what the spec leaves open: the maps' width, which groups a
// retained layer has, and for a converted model its whole form. Measuring it may still change what
// counts in use alone.
Status SetModel(const v1::JobSpec& spec, Plan& plan) {
  TANDEM_ASSIGN_OR_RETURN(const ModelFolder model, ReadModelFolder(spec.model().path()));
  plan.model = spec.model().path();
  plan.served_mode = ServedMode(spec);
  plan.attention = AttentionOf(spec.attention());
  if (plan.attention.feature_dim == 0) plan.attention.feature_dim = model.head_dim;
  const auto& texts = spec.attention().retain().kv_groups();
  TANDEM_ASSIGN_OR_RETURN(plan.attention.retained,
                          RetainedGroupsOf({texts.begin(), texts.end()}, model));
  if (!model.is_converted) return Status::Ok();
  const AttentionPlan wanted = plan.attention;
  plan.attention = model.attention;
  plan.served_mode = model.served_mode;
  plan.converted = plan.model;
  if (spec.model().has_base()) plan.model = spec.model().base();
  if (wanted.mixing_kind == "mass") plan.attention.mixing_kind = wanted.mixing_kind;
  if (wanted.window_gain != 1) plan.attention.window_gain = wanted.window_gain;
  if (wanted.cache_size > 0) plan.attention.cache_size = wanted.cache_size;
  return Status::Ok();
}

void SetEvaluate(const v1::EvaluateSpec& spec, EvaluatePlan& plan) {
  plan.sequences = spec.sequences();
  plan.sinks = spec.sinks();
  plan.bootstrap = spec.bootstrap();
  plan.passkey = spec.passkey().prompts() > 0;
  plan.long_range =
      spec.needle().prompts() > 0 || spec.recall().prompts() > 0 || spec.key_value().prompts() > 0;
  plan.suites = spec.suites_size() > 0;
  plan.suite_modes.assign(spec.suite_modes().begin(), spec.suite_modes().end());
  plan.lengths.assign(spec.lengths().begin(), spec.lengths().end());
  plan.control = spec.control();
}

template <typename Values>
Json ListOf(const Values& values) {
  Json list = Json::array();
  for (const auto& value : values) list.push_back(value);
  return list;
}

// Keys that are absent mean what prepare did before it knew them, so that its cache stays valid.
void AddDataOptions(const v1::DataSpec& data, Json& request) {
  if (data.weights_size() > 0) request["weights"] = ListOf(data.weights());
  if (data.has_text_key() && data.text_key() != "text") request["text_key"] = data.text_key();
  if (data.train_on_prompt()) request["train_on_prompt"] = true;
}

void AddEvaluation(const v1::EvaluateSpec& evaluate, Json& request) {
  const auto& passkey = evaluate.passkey();
  const auto& needle = evaluate.needle();
  const auto& recall = evaluate.recall();
  const auto& key_value = evaluate.key_value();
  if (passkey.prompts() > 0) {
    request["passkey"] = {{"prompts", passkey.prompts()},
                          {"distances", ListOf(passkey.distances())},
                          {"length", passkey.length()}};
  }
  if (needle.prompts() > 0) {
    request["needle"] = {{"prompts", needle.prompts()},
                         {"distances", ListOf(needle.distances())},
                         {"length", needle.length()}};
  }
  if (recall.prompts() > 0) {
    request["recall"] = {{"prompts", recall.prompts()},
                         {"facts", ListOf(recall.facts())},
                         {"length", recall.length()}};
  }
  if (key_value.prompts() > 0) {
    request["key_value"] = {{"prompts", key_value.prompts()},
                            {"pairs", ListOf(key_value.pairs())},
                            {"length", key_value.length()}};
  }
  if (evaluate.suites_size() > 0) {
    request["suites"] = ListOf(evaluate.suites());
    request["suite_items"] = evaluate.suite_items();
    request["bos"] = evaluate.bos();
  }
}

}  // namespace

Result<Plan> BuildPlan(const v1::JobSpec& stored, const PlanContext& context) {
  // A job stored by an older version lacks the fields that came later: they take their defaults.
  const v1::JobSpec spec = Resolve(stored);
  Plan plan;
  SetContext(context, plan);
  TANDEM_RETURN_IF_ERROR(SetModel(spec, plan));
  plan.seed = spec.seed();
  plan.recipe = spec.recipe();
  plan.device = spec.parallelism().device();
  plan.base_dtype = spec.model().dtype();
  plan.spec_sha256 = SpecSha256(spec);
  plan.spec_json = CanonicalJson(spec);
  plan.ranks = spec.parallelism().data();
  plan.threads_per_rank = spec.parallelism().threads_per_rank() > 0
                              ? spec.parallelism().threads_per_rank()
                              : context.threads_per_slot;
  plan.data.sequence_length = spec.data().sequence_length();
  plan.data.document_mask = spec.data().document_mask();
  plan.stages = StagesOf(spec);
  SetEvaluate(spec.evaluate(), plan.evaluate);
  plan.export_dtype = spec.export_().dtype();
  plan.export_adapter = spec.export_().adapter();
  plan.export_delta = spec.export_().delta();
  plan.export_max_shard_mb = spec.export_().max_shard_mb();
  plan.checkpoint_every_steps = spec.checkpoint().every_steps();
  plan.checkpoint_every_seconds = spec.checkpoint().every_seconds();
  plan.checkpoint_keep = spec.checkpoint().keep();
  // As the ranks will read it: what they would refuse is refused here, before anything starts.
  return PlanFromJson(PlanToJson(plan));
}

std::string PrepareRequest(const v1::JobSpec& stored, const std::string& cache_folder) {
  const v1::JobSpec spec = Resolve(stored);
  const v1::DataSpec& data = spec.data();
  // diagnose trains nothing; prepare makes both shards from what is measured.
  const auto& train = data.train_size() > 0 ? data.train() : data.validation();
  Json request = {{"version", 1},
                  {"tokenizer", spec.model().path()},
                  {"cache", cache_folder},
                  {"train", ListOf(train)},
                  {"validation", ListOf(data.validation())},
                  {"validation_fraction", data.validation_fraction()},
                  {"max_documents", data.max_documents()},
                  {"sequence_length", data.sequence_length()},
                  {"seed", spec.seed()}};
  AddDataOptions(data, request);
  AddEvaluation(spec.evaluate(), request);
  return request.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tandem::agent
