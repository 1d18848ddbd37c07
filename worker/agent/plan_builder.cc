#include "worker/agent/plan_builder.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "spec/spec.h"

namespace tandem::agent {
namespace {

using Json = nlohmann::ordered_json;

// head_dim, or hidden_size / num_attention_heads as older configs mean it.
Result<int64_t> HeadDim(const std::string& model_folder) {
  const std::string path = JoinPath(model_folder, "config.json");
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
  const Json config = Json::parse(text, nullptr, false);
  const auto integer = [&config](const char* key) -> int64_t {
    const auto found = config.is_object() ? config.find(key) : config.end();
    return found != config.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
  };
  int64_t head_dim = integer("head_dim");
  const int64_t heads = integer("num_attention_heads");
  if (head_dim <= 0 && heads > 0) head_dim = integer("hidden_size") / heads;
  if (head_dim <= 0) {
    return InvalidArgument(path +
                           " names neither head_dim nor hidden_size and num_attention_heads");
  }
  return head_dim;
}

AttentionPlan AttentionOf(const v1::AttentionSpec& spec) {
  AttentionPlan plan;
  plan.feature_map_kind = spec.feature_map().kind();
  plan.feature_dim = spec.feature_map().dim();
  plan.window_kind = spec.window().kind();
  plan.window_size = spec.window().size();
  plan.window_sinks = spec.window().sinks();
  plan.max_grad = spec.window().max_grad();
  plan.linear_span = spec.linear().span();
  plan.mixing_factor = spec.mixing().factor();
  plan.mixing_initial = spec.mixing().initial();
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
  plan.train_maps = spec.train_maps();
  plan.clip_norm = spec.clip_norm();
  plan.lora_rank = spec.lora().rank();
  plan.lora_alpha = spec.lora().alpha();
  plan.lora_targets.assign(spec.lora().targets().begin(), spec.lora().targets().end());
  plan.ssd_schedule.assign(spec.ssd().schedule().begin(), spec.ssd().schedule().end());
  if (spec.ssd().has_granularity()) plan.ssd_granularity = spec.ssd().granularity();
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
}

}  // namespace

Result<Plan> BuildPlan(const v1::JobSpec& spec, const PlanContext& context) {
  Plan plan;
  SetContext(context, plan);
  plan.seed = spec.seed();
  plan.model = spec.model().path();
  plan.spec_sha256 = SpecSha256(spec);
  plan.spec_json = CanonicalJson(spec);
  plan.ranks = spec.parallelism().data();
  plan.threads_per_rank = spec.parallelism().threads_per_rank() > 0
                              ? spec.parallelism().threads_per_rank()
                              : context.threads_per_slot;
  plan.attention = AttentionOf(spec.attention());
  if (plan.attention.feature_dim == 0) {
    TANDEM_ASSIGN_OR_RETURN(plan.attention.feature_dim, HeadDim(plan.model));
  }
  plan.data.sequence_length = spec.data().sequence_length();
  plan.stages = StagesOf(spec);
  plan.evaluate.sequences = spec.evaluate().sequences();
  plan.evaluate.sinks = spec.evaluate().sinks();
  plan.evaluate.bootstrap = spec.evaluate().bootstrap();
  plan.evaluate.passkey = spec.evaluate().passkey().prompts() > 0;
  plan.export_dtype = spec.export_().dtype();
  plan.checkpoint_every_steps = spec.checkpoint().every_steps();
  plan.checkpoint_every_seconds = spec.checkpoint().every_seconds();
  plan.checkpoint_keep = spec.checkpoint().keep();
  // As the ranks will read it: what they would refuse is refused here, before anything starts.
  return PlanFromJson(PlanToJson(plan));
}

std::string PrepareRequest(const v1::JobSpec& spec, const std::string& cache_folder) {
  const v1::DataSpec& data = spec.data();
  Json request = {
      {"version", 1},
      {"tokenizer", spec.model().path()},
      {"cache", cache_folder},
      {"train", Json(std::vector<std::string>(data.train().begin(), data.train().end()))},
      {"validation",
       Json(std::vector<std::string>(data.validation().begin(), data.validation().end()))},
      {"validation_fraction", data.validation_fraction()},
      {"max_documents", data.max_documents()},
      {"sequence_length", data.sequence_length()},
      {"seed", spec.seed()}};
  const v1::PasskeySpec& passkey = spec.evaluate().passkey();
  if (passkey.prompts() > 0) {
    const int64_t length = passkey.length() > 0 ? passkey.length() : data.sequence_length();
    request["passkey"] = {{"prompts", passkey.prompts()},
                          {"distances", Json(std::vector<int64_t>(passkey.distances().begin(),
                                                                  passkey.distances().end()))},
                          {"length", length}};
  }
  return request.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tandem::agent
