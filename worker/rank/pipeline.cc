#include "worker/rank/pipeline.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/digest.h"
#include "base/files.h"
#include "base/log.h"
#include "worker/export/weights.h"
#include "worker/model/device.h"
#include "worker/model/model_digest.h"
#include "worker/rank/component_losses.h"
#include "worker/rank/cost_estimate.h"
#include "worker/rank/failure.h"
#include "worker/rank/metrics_history.h"
#include "worker/rank/retained_choice.h"
#include "worker/rank/stage_factory.h"
#include "worker/train/lora_start.h"

namespace tandem {
namespace {

constexpr const char* kEarlyStopName = "early_stop.json";  // beside report.json

// Only the parameters of a finished stage matter: the next one starts with fresh moments.
NamedTensors OnlyParameters(const NamedTensors& state) {
  NamedTensors parameters;
  for (const auto& [name, tensor] : state) {
    if (!name.starts_with("adam.") && !name.starts_with("stop.")) parameters[name] = tensor;
  }
  return parameters;
}

NamedTensors StateOf(const TrainingStage& stage, const EarlyStop* stop) {
  NamedTensors state = stage.State();
  if (stop != nullptr) state.merge(stop->State());
  return state;
}

// {"loss": ...} -> {"loss": ..., "reused": true}: nobody spent these seconds now.
std::string MarkedAsReused(const std::string& lines) {
  std::string marked;
  for (const char c : lines) {
    if (c == '\n' && marked.ends_with('}')) {
      marked.pop_back();
      marked += ",\"reused\":true}";
    }
    marked += c;
  }
  return marked;
}

}  // namespace

Pipeline::Pipeline(const Plan& plan, Collective& collective, EventChannel& channel, Clock& clock)
    : plan_(plan), collective_(collective), channel_(channel), clock_(clock) {
  RequirePlan(CheckPlanForRanks(plan, collective.size()));
  LoadModels();
  RequireData(CheckSequenceLength(model_->config(), plan.data.sequence_length));
  const std::string& measured = plan.converted.empty() ? plan.model : plan.converted;
  if (is_first()) base_sha256_ = ValueOr(DigestModel(measured), RequireData).sha256;
  base_sha256_ = collective_.Broadcast(base_sha256_, 0);
  LoadTokens();
  retain_scores_ = ChooseRetained(*model_, collective_, plan_);
  if (parameters_ == nullptr) {
    parameters_ = std::make_unique<Parameters>(model_->config(), ParameterOptionsOf(plan),
                                               model_->device().device);
    DrawLoraStart(plan.seed, *parameters_);
  }
  stage_cache_ = std::make_unique<StageCache>(plan_, base_sha256_);
  if (!plan.resume_from.empty()) Resume();
  if (is_first()) {
    metrics_ =
        ValueOr(MetricsLog::Open(JoinPath(plan.attempt_folder, "metrics.jsonl")), RequireStorage);
    board_ = ValueOr(TensorboardLog::Open(plan_.job_folder, plan_.epoch,
                                          StepsBefore(first_stage_) + first_step_, clock_),
                     RequireStorage);
    progress_ = std::make_unique<ProgressReporter>(channel_);
  }
  keeper_ = std::make_unique<CheckpointKeeper>(plan_, base_sha256_, is_first(), channel_, clock_);
}

void Pipeline::LoadModels() {
  const ComputeDevice device =
      ValueOr(OpenDevice(plan_.device, plan_.base_dtype, collective_.rank()), RequirePlan);
  if (plan_.converted.empty()) {
    model_ = ValueOr(Llama::Load(plan_.model, device), RequireData);
    return;
  }
  const ModelConfig config = ValueOr(ReadModelConfig(plan_.converted), RequireData);
  ExportedWeights weights = ValueOr(
      ReadExportWeights(plan_.converted, config, ParameterOptionsOf(plan_), device), RequireData);
  model_ = std::move(weights.model);
  parameters_ = std::move(weights.parameters);
  if (plan_.model == plan_.converted) return;
  reference_ = ValueOr(Llama::Load(plan_.model, device), RequireData);
  if (reference_->config().vocab_size == config.vocab_size) return;
  RequireData(InvalidArgument("model.base " + plan_.model + " has vocab_size " +
                              std::to_string(reference_->config().vocab_size) + ", model.path " +
                              std::to_string(config.vocab_size) +
                              "; give the model that was converted"));
}

void Pipeline::LoadTokens() {
  TokenExpectations expected;
  expected.vocab_size = model_->config().vocab_size;
  expected.check_digests = is_first();
  const std::string tokenizer =
      JoinPath(plan_.converted.empty() ? plan_.model : plan_.converted, "tokenizer.json");
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
  EstimateCost({plan_, *model_, *parameters_, program_bytes_}, collective_, clock_);
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
  const ClosingInputs inputs{plan_,   *model_, *parameters_, collective_, reference_.get(),
                             Notes(), memory_};
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
      MakeStage(plan_, stage_index, *model_, *parameters_, collective_);
  const std::unique_ptr<EarlyStop> stop = MakeEarlyStop(plan);
  const bool is_resumed = !resumed_state_.empty();
  if (is_resumed) {
    RequireStorage(RestoreTensors(resumed_state_, StateOf(*stage, stop.get())));
    resumed_state_.clear();
  }
  SendEvent("stage_started", stage_index, "{}");
  const bool is_reused = !is_resumed && ReuseStage(stage_index);
  if (!is_reused && !TakeSteps(stage_index, first_step, *stage, stop.get())) return false;
  if (stop != nullptr) WriteEarlyStop(stage_index, *stop);
  const auto saved = keeper_->Save(CursorAt(stage_index, plan.steps), StateOf(*stage, stop.get()));
  if (saved) CommitStage(stage_index, *saved);
  if (!is_reused) CacheStage(stage_index);
  return true;
}

bool Pipeline::TakeSteps(int64_t stage_index, int64_t first_step, TrainingStage& stage,
                         EarlyStop* stop) {
  const StagePlan& plan = plan_.stages[static_cast<size_t>(stage_index)];
  const Sampler sampler = train_->MakeSampler(plan_.seed, stage_index, plan.batch_size);
  if (stop != nullptr) stop->Start();
  for (int64_t step = first_step; step < plan.steps; ++step) {
    const int64_t start_ns = clock_.MonotonicNs();
    const StepReport report = stage.Step(step, ReadBatch(sampler, stage_index, step));
    ReportStep(stage_index, step, report,
               static_cast<double>(clock_.MonotonicNs() - start_ns) * 1e-9);
    if (stop != nullptr && stop->AfterStep(step + 1)) return true;
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

bool Pipeline::ReuseStage(int64_t stage_index) {
  const std::string key = stage_cache_->KeyOf(stage_index);
  if (key.empty()) return false;
  StageCache::Entry entry;
  if (is_first()) entry = stage_cache_->Load(key);
  if (collective_.Broadcast(entry.tensors.empty() ? "none" : "found", 0) == "none") return false;
  if (!is_first()) entry = stage_cache_->Load(key);
  RequireStorage(RestoreTensors(entry.tensors, TransferredTensors(parameters_->tensors())));
  collective_.Barrier();  // until here the first rank's lease keeps the entry
  if (!is_first()) return true;
  RequireStorage(metrics_->AppendLines(MarkedAsReused(entry.metrics)));
  const StagePlan& plan = plan_.stages[static_cast<size_t>(stage_index)];
  progress_->Update({plan.kind, stage_index, plan.steps, plan.steps, {}});
  SendEvent("stage_reused", stage_index, nlohmann::json{{"key", key}}.dump());
  return true;
}

void Pipeline::CacheStage(int64_t stage_index) {
  const std::string key = stage_cache_->KeyOf(stage_index);
  if (!is_first() || key.empty()) return;
  const auto history = ValueOr(ReadMetricsHistory(plan_.job_folder, plan_.epoch), RequireStorage);
  std::string lines;
  for (const auto& [place, line] : history) {
    if (place.first == stage_index) lines += line + "\n";
  }
  stage_cache_->Store(key, stage_index, TransferredTensors(parameters_->tensors()), lines);
}

std::unique_ptr<EarlyStop> Pipeline::MakeEarlyStop(const StagePlan& stage) {
  if (stage.kind != "finetune" || stage.stop_component == "none") return nullptr;
  const std::shared_ptr<WatchedText> text = ValueOr(WatchedText::Open(plan_, stage), RequireData);
  const auto measure = [this, text] {
    return MeasureComponents(plan_, *model_, *parameters_, *text, collective_);
  };
  return std::make_unique<EarlyStop>(
      EarlyStopOptions{stage.stop_component, stage.stop_every, stage.stop_slack, stage.steps},
      parameters_->tensors(), measure);
}

// Before the stage is committed, so that the report has it whatever attempt evaluates.
void Pipeline::WriteEarlyStop(int64_t stage_index, const EarlyStop& stop) {
  if (!is_first()) return;
  const std::string folder = JoinPath(plan_.job_folder, "artifacts");
  RequireStorage(MakeFolders(folder));
  RequireStorage(WriteFileDurably(JoinPath(folder, kEarlyStopName), stop.ToJson(stage_index)));
}

std::map<std::string, std::string> Pipeline::Notes() const {
  std::map<std::string, std::string> notes;
  if (!is_first()) return notes;
  const std::string path = JoinPath(JoinPath(plan_.job_folder, "artifacts"), kEarlyStopName);
  if (PathExists(path)) notes["early_stop"] = ValueOr(ReadFile(path), RequireStorage);
  const auto history = ValueOr(ReadMetricsHistory(plan_.job_folder, plan_.epoch), RequireStorage);
  if (!retain_scores_.empty()) notes["retain_scores"] = retain_scores_;
  auto diverged = nlohmann::json::array(), transfers = nlohmann::json::array();
  for (size_t i = 0; i < plan_.stages.size(); ++i) {
    const std::string words = DivergenceWords(history, static_cast<int64_t>(i));
    if (!words.empty()) diverged.push_back(words);
    const std::string told = TransferDivergence(history, static_cast<int64_t>(i));
    if (!told.empty()) transfers.push_back(nlohmann::json::parse(told));
  }
  if (!transfers.empty()) notes["transfer_divergence"] = transfers.dump();
  if (!diverged.empty()) notes["divergence"] = diverged.dump();
  return notes;
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
    if (plan_.data.document_mask) batch.document_starts.push_back(train_->DocumentStarts(place));
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
  const StepLine line{plan.kind, stage_index, step + 1, tokens, seconds, MemoryOfStage()};
  RequireStorage(metrics_->Append(line, report));
  RequireStorage(board_->Append(StepsBefore(stage_index) + step + 1, StepScalars(line, report)));
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

double Pipeline::MemoryOfStage() const {
  if (model_->device().device.is_cpu()) return memory_.OfStage();
  return static_cast<double>(PeakDeviceBytes(model_->device()));
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
