#include "worker/rank/pipeline.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "worker/rank/component_losses.h"
#include "worker/rank/cost_estimate.h"
#include "worker/rank/failure.h"
#include "worker/rank/metrics_history.h"
#include "worker/rank/report_notes.h"
#include "worker/rank/stage_factory.h"
#include "worker/rank/stage_state.h"
#include "worker/rank/step_batch.h"

namespace tandem {
Pipeline::Pipeline(const Plan& plan, Collective& collective, EventChannel& channel, Clock& clock)
    : plan_(plan), collective_(collective), channel_(channel), clock_(clock) {
  inputs_ = LoadInputs(plan_, collective_);
  stage_cache_ = std::make_unique<StageCache>(plan_, inputs_.base_sha256);
  if (!plan_.resume_from.empty()) Resume();
  if (is_first()) {
    metrics_ =
        ValueOr(MetricsLog::Open(JoinPath(plan_.attempt_folder, "metrics.jsonl")), RequireStorage);
    board_ = ValueOr(TensorboardLog::Open(plan_.job_folder, plan_.epoch,
                                          StepsBefore(first_stage_) + first_step_, clock_),
                     RequireStorage);
    progress_ = std::make_unique<ProgressReporter>(channel_);
  }
  keeper_ =
      std::make_unique<CheckpointKeeper>(plan_, inputs_.base_sha256, is_first(), channel_, clock_);
}

void Pipeline::Resume() {
  LoadedCheckpoint loaded = ValueOr(LoadCheckpoint(plan_.resume_from), RequireStorage);
  const CheckpointManifest& manifest = loaded.manifest;
  if (manifest.spec_sha256 != plan_.spec_sha256 || manifest.base_sha256 != inputs_.base_sha256) {
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
  RequireStorage(RestoreTensors(ParametersOf(loaded.tensors), inputs_.parameters->tensors()));
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
  EstimateCost({plan_, *inputs_.model, *inputs_.parameters, program_bytes_}, collective_, clock_);
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
  memory_.StartStage();
  ClosingInputs inputs{plan_,       *inputs_.model,          *inputs_.parameters,
                       collective_, inputs_.reference.get(), {},
                       memory_};
  if (is_first()) inputs.notes = ReportNotes(plan_, inputs_.retain_scores);
  SendEvent("stage_started", evaluate, "{}");
  const ClosingResult report = RunEvaluate(inputs, [&](int64_t done, int64_t total) {
    if (progress_) progress_->Update({"evaluate", evaluate, done, total, {}});
  });
  if (!is_first()) return;
  RequireStorage(board_->AppendReport(StepsBefore(evaluate), report.path));
  CommitClosing("report", evaluate, report);
  if (plan_.recipe == "diagnose") return;  // there is nothing new to export
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
  memory_.StartStage();
  const std::unique_ptr<TrainingStage> stage =
      MakeStage(plan_, stage_index, *inputs_.model, *inputs_.parameters, collective_);
  const std::unique_ptr<EarlyStop> stop = MakeEarlyStop(plan);
  const bool is_resumed = !resumed_state_.empty();
  if (is_resumed) {
    RequireStorage(RestoreTensors(resumed_state_, StateOf(*stage, stop.get())));
    resumed_state_.clear();
  }
  SendEvent("stage_started", stage_index, "{}");
  const NamedTensors result = ResultOf(plan, StateOf(*stage, stop.get()));
  const bool is_reused = !is_resumed && ReuseStage(stage_index, result);
  if (!is_reused && !TakeSteps(stage_index, first_step, *stage, stop.get())) return false;
  if (stop != nullptr && is_first()) WriteEarlyStop(plan_, *stop, stage_index);
  const auto saved = keeper_->Save(CursorAt(stage_index, plan.steps), StateOf(*stage, stop.get()));
  if (saved) CommitStage(stage_index, *saved);
  if (!is_reused) CacheStage(stage_index, result);
  return true;
}

bool Pipeline::TakeSteps(int64_t stage_index, int64_t first_step, TrainingStage& stage,
                         EarlyStop* stop) {
  const StagePlan& plan = plan_.stages[static_cast<size_t>(stage_index)];
  if (stop != nullptr) stop->Start();
  for (int64_t step = first_step; step < plan.steps; ++step) {
    const int64_t start_ns = clock_.MonotonicNs();
    const StepReport report =
        stage.Step(step, ReadStepBatch(plan_, stage_index, step, *inputs_.train, collective_));
    ReportStep(stage_index, step, report,
               static_cast<double>(clock_.MonotonicNs() - start_ns) * 1e-9);
    if (report.finished || (stop != nullptr && stop->AfterStep(step + 1))) return true;
    const ControlRequest request = AgreeOnRequest();
    if (request == ControlRequest::kStop) return false;
    const CheckpointCursor cursor = CursorAt(stage_index, step + 1);
    if (request != ControlRequest::kNone || keeper_->DueBySteps(cursor.global_step)) {
      keeper_->Save(cursor, StateOf(stage, stop));
    }
    if (request == ControlRequest::kCheckpointStop) return false;
  }
  return true;
}

bool Pipeline::ReuseStage(int64_t stage_index, const NamedTensors& result) {
  const std::string key = stage_cache_->KeyOf(stage_index);
  if (key.empty()) return false;
  StageCache::Entry entry;
  if (is_first()) entry = stage_cache_->Load(key);
  if (collective_.Broadcast(entry.tensors.empty() ? "none" : "found", 0) == "none") return false;
  if (!is_first()) entry = stage_cache_->Load(key);
  RequireStorage(RestoreTensors(entry.tensors, result));
  collective_.Barrier();  // until here the first rank's lease keeps the entry
  if (!is_first()) return true;
  LogSteps(stage_index, MarkedAsReused(entry.metrics));
  const StagePlan& plan = plan_.stages[static_cast<size_t>(stage_index)];
  progress_->Update({plan.kind, stage_index, plan.steps, plan.steps, {}});
  SendEvent("stage_reused", stage_index, nlohmann::json{{"key", key}}.dump());
  return true;
}

void Pipeline::CacheStage(int64_t stage_index, const NamedTensors& result) {
  const std::string key = stage_cache_->KeyOf(stage_index);
  if (!is_first() || key.empty()) return;
  const auto history = ValueOr(ReadMetricsHistory(plan_.job_folder, plan_.epoch), RequireStorage);
  stage_cache_->Store(key, stage_index, result, LinesOfStage(history, stage_index));
}

std::unique_ptr<EarlyStop> Pipeline::MakeEarlyStop(const StagePlan& stage) {
  if (stage.kind != "finetune" || stage.stop_component == "none") return nullptr;
  const std::shared_ptr<WatchedText> text = ValueOr(WatchedText::Open(plan_, stage), RequireData);
  const auto measure = [this, text] {
    return MeasureComponents(plan_, *inputs_.model, *inputs_.parameters, *text, collective_);
  };
  return std::make_unique<EarlyStop>(
      EarlyStopOptions{stage.stop_component, stage.stop_every, stage.stop_slack, stage.steps},
      inputs_.parameters->tensors(), measure);
}

void Pipeline::ReportStep(int64_t stage_index, int64_t step, const StepReport& report,
                          double seconds) {
  if (!is_first()) return;
  const StagePlan& plan = plan_.stages[static_cast<size_t>(stage_index)];
  const int64_t tokens = plan.batch_size * plan_.data.sequence_length;
  const StepLine line{plan.kind, stage_index, step + 1, tokens, seconds, MemoryOfStage()};
  LogSteps(stage_index, MetricsLine(line, report));
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

void Pipeline::LogSteps(int64_t stage_index, const std::string& metrics_lines) {
  RequireStorage(metrics_->Append(metrics_lines));
  RequireStorage(board_->AppendSteps(StepsBefore(stage_index), metrics_lines));
}

double Pipeline::MemoryOfStage() const {
  if (inputs_.model->device().device.is_cpu()) return memory_.OfStage();
  return static_cast<double>(PeakDeviceBytes(inputs_.model->device()));
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
