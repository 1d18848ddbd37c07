#include "worker/rank/pipeline.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/digest.h"
#include "base/files.h"
#include "base/log.h"
#include "worker/model/model_digest.h"
#include "worker/rank/failure.h"
#include "worker/rank/stage_factory.h"
#include "worker/train/lora_start.h"

namespace tandem {
namespace {

// Only the parameters of a finished stage matter: the next one starts with fresh moments.
NamedTensors OnlyParameters(const NamedTensors& state) {
  NamedTensors parameters;
  for (const auto& [name, tensor] : state) {
    if (!name.starts_with("adam.")) parameters[name] = tensor;
  }
  return parameters;
}

}  // namespace

Pipeline::Pipeline(const Plan& plan, Collective& collective, EventChannel& channel, Clock& clock)
    : plan_(plan), collective_(collective), channel_(channel), clock_(clock) {
  RequirePlan(CheckPlanForRanks(plan, collective.size()));
  model_ = ValueOr(Llama::Load(plan.model), RequireData);
  RequireData(CheckSequenceLength(model_->config(), plan.data.sequence_length));
  if (is_first()) base_sha256_ = ValueOr(DigestModel(plan.model), RequireData).sha256;
  base_sha256_ = collective_.Broadcast(base_sha256_, 0);
  LoadTokens();
  parameters_ = std::make_unique<Parameters>(model_->config(), ParameterOptionsOf(plan));
  DrawLoraStart(plan.seed, *parameters_);
  if (!plan.resume_from.empty()) Resume();
  if (is_first()) {
    metrics_ =
        ValueOr(MetricsLog::Open(JoinPath(plan.attempt_folder, "metrics.jsonl")), RequireStorage);
    progress_ = std::make_unique<ProgressReporter>(channel_);
  }
  keeper_ = std::make_unique<CheckpointKeeper>(plan_, base_sha256_, is_first(), channel_, clock_);
}

void Pipeline::LoadTokens() {
  TokenExpectations expected;
  expected.vocab_size = model_->config().vocab_size;
  expected.check_digests = is_first();
  const std::string tokenizer = JoinPath(plan_.model, "tokenizer.json");
  if (is_first() && PathExists(tokenizer)) {
    expected.tokenizer_sha256 = ValueOr(Sha256OfFile(tokenizer), RequireData);
  }
  RequireData(CheckTokenFolder(plan_.data.tokens, expected));
  train_ = ValueOr(TrainingData::Open(plan_.data.tokens, plan_.data.sequence_length), RequireData);
}

void Pipeline::Resume() {
  LoadedCheckpoint loaded = ValueOr(LoadCheckpoint(plan_.resume_from), RequireStorage);
  const CheckpointManifest& manifest = loaded.manifest;
  if (manifest.spec_sha256 != plan_.spec_sha256 || manifest.base_sha256 != base_sha256_) {
    RequirePlan(FailedPrecondition("checkpoint " + plan_.resume_from +
                                   " belongs to another spec or another base model; "
                                   "start the job anew"));
  }
  const int64_t num_stages = static_cast<int64_t>(plan_.stages.size());
  if (manifest.stage_index < 0 || manifest.stage_index >= num_stages) {
    RequirePlan(FailedPrecondition("checkpoint " + plan_.resume_from + " is at stage " +
                                   std::to_string(manifest.stage_index) + " of " +
                                   std::to_string(num_stages)));
  }
  first_stage_ = manifest.stage_index;
  first_step_ = manifest.stage_step;
  RequireStorage(RestoreTensors(OnlyParameters(loaded.tensors), parameters_->tensors()));
  if (first_step_ >= plan_.stages[static_cast<size_t>(first_stage_)].steps) {
    ++first_stage_;
    first_step_ = 0;
  } else {
    resumed_state_ = std::move(loaded.tensors);
  }
  Log(LogLevel::kInfo, "resumed",
      {{"checkpoint", plan_.resume_from}, {"stage_index", first_stage_}, {"step", first_step_}});
}

RankExit Pipeline::Run() {
  const int64_t num_stages = static_cast<int64_t>(plan_.stages.size());
  for (int64_t i = first_stage_; i < num_stages; ++i) {
    if (!RunStage(i, i == first_stage_ ? first_step_ : 0)) return RankExit::kStopped;
  }
  // What was asked for during the last step has been agreed upon by now.
  if (AgreeOnRequest() >= ControlRequest::kCheckpointStop) return RankExit::kStopped;
  // From here on nothing is lost by leaving at once: all training is committed.
  channel_.SetInterruptible(true);
  RunClosingStages();
  collective_.Barrier();
  return RankExit::kDone;
}

void Pipeline::RunClosingStages() {
  const int64_t evaluate = static_cast<int64_t>(plan_.stages.size()), export_ = evaluate + 1;
  const ClosingInputs inputs{plan_, *model_, *parameters_, collective_};
  SendEvent("stage_started", evaluate, "{}");
  const ClosingResult report = RunEvaluate(inputs, [&](int64_t done, int64_t total) {
    if (progress_) progress_->Update({"evaluate", evaluate, done, total, {}});
  });
  if (!is_first()) return;
  CommitClosing("report", evaluate, report);
  SendEvent("stage_started", export_, "{}");
  progress_->Update({"export", export_, 0, 1, {}});
  CommitClosing("artifact", export_, RunExport(inputs));
}

void Pipeline::CommitClosing(const char* kind, int64_t stage_index, const ClosingResult& result) {
  SendEvent(kind, stage_index, nlohmann::json{{"path", result.path}}.dump());
  SendEvent("stage_committed", stage_index,
            nlohmann::json{{"output_sha256", result.output_sha256}}.dump());
}

bool Pipeline::RunStage(int64_t stage_index, int64_t first_step) {
  const StagePlan& plan = plan_.stages[static_cast<size_t>(stage_index)];
  const std::unique_ptr<TrainingStage> stage =
      MakeStage(plan_, stage_index, *model_, *parameters_, collective_);
  if (!resumed_state_.empty()) {
    RequireStorage(RestoreTensors(resumed_state_, stage->State()));
    resumed_state_.clear();
  }
  SendEvent("stage_started", stage_index, "{}");
  const Sampler sampler = train_->MakeSampler(plan_.seed, stage_index, plan.batch_size);
  for (int64_t step = first_step; step < plan.steps; ++step) {
    const int64_t start_ns = clock_.MonotonicNs();
    const StepReport report = stage->Step(step, ReadBatch(sampler, stage_index, step));
    ReportStep(stage_index, step, report,
               static_cast<double>(clock_.MonotonicNs() - start_ns) * 1e-9);
    const ControlRequest request = AgreeOnRequest();
    if (request == ControlRequest::kStop) return false;
    const CheckpointCursor cursor = CursorAt(stage_index, step + 1);
    if (request != ControlRequest::kNone || keeper_->DueBySteps(cursor.global_step)) {
      keeper_->Save(cursor, *stage);
    }
    if (request == ControlRequest::kCheckpointStop) return false;
  }
  const auto saved = keeper_->Save(CursorAt(stage_index, plan.steps), *stage);
  if (saved) CommitStage(stage_index, *saved);
  return true;
}

StepBatch Pipeline::ReadBatch(const Sampler& sampler, int64_t stage_index, int64_t step) const {
  const int64_t T = plan_.data.sequence_length, rank = collective_.rank();
  const std::vector<ChunkPlace> places = sampler.PlacesOfRank(step, rank, collective_.size());
  const auto B = static_cast<int64_t>(places.size());
  StepBatch batch;
  batch.ids_BT = at::empty({B, T}, at::kLong);
  if (train_->masked()) batch.label_mask_BT = at::empty({B, T}, at::kByte);
  for (int64_t b = 0; b < B; ++b) {
    const ChunkPlace& place = places[static_cast<size_t>(b)];
    train_->ReadIds(place, batch.ids_BT.mutable_data_ptr<int64_t>() + b * T);
    if (!train_->masked()) continue;
    train_->ReadLabels(place, batch.label_mask_BT.mutable_data_ptr<uint8_t>() + b * T);
  }
  const int64_t batch_size = plan_.stages[static_cast<size_t>(stage_index)].batch_size;
  batch.first_sample = rank * (batch_size / collective_.size());
  return batch;
}

void Pipeline::ReportStep(int64_t stage_index, int64_t step, const StepReport& report,
                          double seconds) {
  if (!is_first()) return;
  const StagePlan& plan = plan_.stages[static_cast<size_t>(stage_index)];
  const int64_t tokens = plan.batch_size * plan_.data.sequence_length;
  RequireStorage(metrics_->Append({plan.kind, stage_index, step + 1, tokens, seconds}, report));
  ProgressState state{plan.kind, stage_index, step + 1, plan.steps, {}};
  state.metrics = {{"loss", report.loss},
                   {"learning_rate", report.learning_rate},
                   {"step_seconds", seconds},
                   {"tokens_per_second", static_cast<double>(tokens) / std::max(seconds, 1e-9)}};
  if (plan.kind == "finetune") {
    state.metrics["grad_norm"] = report.grad_norm;
    state.metrics["window_dropped"] = report.window_dropped;
  }
  progress_->Update(std::move(state));
}

ControlRequest Pipeline::AgreeOnRequest() {
  ControlRequest mine = channel_.TakeRequest();
  // Only the first rank's clock counts: others may be a moment off.
  if (mine == ControlRequest::kNone && is_first() && keeper_->DueByTime()) {
    mine = ControlRequest::kCheckpoint;
  }
  return static_cast<ControlRequest>(collective_.Agree(static_cast<int64_t>(mine)));
}

void Pipeline::CommitStage(int64_t stage_index, const SavedCheckpoint& saved) {
  SendEvent("stage_committed", stage_index,
            nlohmann::json{{"output_sha256", saved.manifest_sha256}}.dump());
}

void Pipeline::SendEvent(const std::string& kind, int64_t stage_index, const std::string& data) {
  if (!is_first()) return;
  const int64_t num_stages = static_cast<int64_t>(plan_.stages.size());
  RankMessage message;
  message.type = "event";
  message.kind = kind;
  message.stage_index = stage_index;
  message.stage = stage_index < num_stages ? plan_.stages[static_cast<size_t>(stage_index)].kind
                                           : (stage_index == num_stages ? "evaluate" : "export");
  message.data = data;
  Log(LogLevel::kInfo, kind.c_str(), {{"stage", message.stage}, {"stage_index", stage_index}});
  channel_.Send(std::move(message));
}

int64_t Pipeline::StepsBefore(int64_t stage_index) const {
  int64_t steps = 0;
  for (int64_t i = 0; i < stage_index; ++i) steps += plan_.stages[static_cast<size_t>(i)].steps;
  return steps;
}

CheckpointCursor Pipeline::CursorAt(int64_t stage_index, int64_t steps_done) const {
  return {stage_index, plan_.stages[static_cast<size_t>(stage_index)].kind, steps_done,
          StepsBefore(stage_index) + steps_done};
}

}  // namespace tandem
