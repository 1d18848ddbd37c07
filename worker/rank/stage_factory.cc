#include "worker/rank/stage_factory.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>

#include "worker/model/plan_form.h"
#include "worker/rank/component_losses.h"
#include "worker/rank/failure.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/finetune.h"

namespace tandem {
namespace {

const StagePlan* FirstFinetune(const Plan& plan) {
  for (const StagePlan& stage : plan.stages) {
    if (stage.kind == "finetune") return &stage;
  }
  return nullptr;
}

bool SameLora(const StagePlan& a, const StagePlan& b) {
  return a.lora_rank == b.lora_rank && a.lora_alpha == b.lora_alpha &&
         a.lora_targets == b.lora_targets;
}

TransferObjective MixtureOf(const StagePlan& stage) {
  TransferObjective objective;
  objective.weights = stage.mixture_weights;
  objective.outputs = stage.mixture_outputs;
  objective.hybrid_outputs = stage.mixture_hybrid_outputs;
  return objective;
}

LearningRateSchedule ScheduleOf(const StagePlan& stage) {
  LearningRateSchedule schedule;
  schedule.peak = stage.learning_rate;
  schedule.warmup_steps = stage.warmup_steps;
  schedule.steps = stage.steps;
  return schedule;
}

// As a step would read it.
StepBatch ReadGroup(const TextSequences& text, int64_t group, bool document_mask) {
  const int64_t first = group * text.group_size(), T = text.T();
  const int64_t count = std::min(text.group_size(), text.size() - first);
  StepBatch batch;
  batch.ids_BT = at::empty({count, T}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    text.Read(first + i, batch.ids_BT.mutable_data_ptr<int64_t>() + i * T);
    if (document_mask) batch.document_starts.push_back(text.DocumentStarts(first + i));
  }
  return batch;
}

WatchedGroups WatchedOf(const Plan& plan, const StagePlan& stage) {
  if (stage.stop_patience == 0) return {};
  const std::shared_ptr<const WatchedText> text =
      ValueOr(WatchedText::Open(plan, stage), RequireData);
  const bool document_mask = plan.data.document_mask;
  return {text->sequences().num_groups(), [text, document_mask](int64_t group) {
            return ReadGroup(text->sequences(), group, document_mask);
          }};
}

}  // namespace

Status CheckPlanForRanks(const Plan& plan, int64_t num_ranks) {
  std::string violations;
  const auto violate = [&](const std::string& text) {
    violations += (violations.empty() ? "" : "\n") + text;
  };
  if (plan.ranks != num_ranks) {
    violate("ranks is " + std::to_string(plan.ranks) + ", but MPI started " +
            std::to_string(num_ranks));
  }
  const StagePlan* lora = FirstFinetune(plan);
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const StagePlan& stage = plan.stages[i];
    const std::string path = "stages[" + std::to_string(i) + "]";
    if (stage.batch_size % num_ranks != 0) {
      violate(path + ".batch_size is " + std::to_string(stage.batch_size) +
              "; must be a multiple of the " + std::to_string(num_ranks) + " ranks");
    }
    if (stage.kind == "finetune" && !SameLora(stage, *lora)) {
      violate(path + " has another LoRA than the first finetune stage; all must agree");
    }
  }
  return violations.empty() ? Status::Ok() : InvalidArgument(violations);
}

AttentionForm TrainedFormOf(const AttentionPlan& attention) {
  AttentionForm form = AttentionFormOf(attention);
  form.window_gain = 1;
  form.mixing = Mixing::kShared;
  form.cache_size = 0;
  return form;
}

ParameterOptions ParameterOptionsOf(const Plan& plan) {
  ParameterOptions options;
  options.feature_dim = plan.attention.feature_dim;
  options.feature_map = FeatureMapKindFromWord(plan.attention.feature_map_kind);
  options.feature_map_bias = plan.attention.feature_map_bias;
  options.tie_kv_heads = plan.attention.tie_kv_heads;
  options.mixing_factor = plan.attention.mixing_factor;
  options.mixing_initial = plan.attention.mixing_initial;
  if (const StagePlan* stage = FirstFinetune(plan)) {
    options.lora.rank = stage->lora_rank;
    options.lora.alpha = stage->lora_alpha;
    options.lora.targets = stage->lora_targets;
  }
  return options;
}

std::unique_ptr<TrainingStage> MakeStage(const Plan& plan, int64_t stage_index, const Llama& model,
                                         const Parameters& parameters, Collective& collective) {
  const StagePlan& stage = plan.stages[static_cast<size_t>(stage_index)];
  if (stage.kind == "attention_transfer") {
    AttentionTransferOptions options;
    options.objective = stage.objective;
    options.mixture = MixtureOf(stage);
    options.attention = TrainedFormOf(plan.attention);
    options.schedule = ScheduleOf(stage);
    options.stop = {stage.stop_patience, stage.stop_every, stage.stop_min_gain, stage.steps};
    options.watched = WatchedOf(plan, stage);
    return std::make_unique<AttentionTransfer>(model, parameters, collective, options);
  }
  FinetuneOptions options;
  options.mode = stage.mode;
  options.objective = stage.loss;
  options.distill_weight = stage.distill_weight;
  options.attention = TrainedFormOf(plan.attention);
  options.schedule = ScheduleOf(stage);
  options.train_maps = stage.train_maps;
  options.train_factor = stage.train_factor;
  options.clip_norm = stage.clip_norm;
  options.dropout = {stage.ssd_schedule, stage.ssd_granularity, stage.steps};
  options.dropped_span = stage.ssd_dropped_span;
  options.window_schedule = stage.ssd_window_schedule;
  options.seed = plan.seed;
  options.stage_index = stage_index;
  return std::make_unique<Finetune>(model, parameters, collective, options);
}

}  // namespace tandem
