#include "worker/rank/cost_estimate.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/remainder.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>

#include "base/files.h"
#include "base/log.h"
#include "worker/evaluate/cost.h"
#include "worker/evaluate/cost_model.h"
#include "worker/evaluate/evaluate.h"
#include "worker/evaluate/passes.h"
#include "worker/export/export_estimate.h"
#include "worker/model/device.h"
#include "worker/rank/failure.h"
#include "worker/rank/stage_factory.h"

namespace tandem {
namespace {

constexpr int64_t kFirstTokens = 64;
constexpr int64_t kGrowth = 4;
constexpr double kLongEnough = 0.1;  // seconds; thread start and timer are then noise
constexpr double kNoWarmUp = 0.5;    // seconds; a first run this long is taken as it is

struct Rehearsal {
  int64_t sequence_length = 0, most_sequences = 1;
  std::function<double(int64_t tokens)> flop_per_token;  // by the sequence's length
  std::function<void(const StepBatch&)> run;
};

class Estimator {
 public:
  Estimator(const CostEstimateInputs& inputs, Collective& collective, const Clock& clock)
      : inputs_(inputs),
        plan_(inputs.plan),
        shape_{inputs.model.config(), plan_.attention, plan_.data.sequence_length},
        collective_(collective),
        clock_(clock) {}

  Estimate Run() {
    Estimate estimate{plan_.ranks, plan_.device, {}};
    const std::optional<StageCost> prepared = PrepareCost(plan_.job_folder);
    if (prepared && prepared->estimate) estimate.stages.push_back(*prepared->estimate);
    for (size_t i = 0; i < plan_.stages.size(); ++i) {
      estimate.stages.push_back(OfTraining(static_cast<int64_t>(i)));
    }
    estimate.stages.push_back(OfEvaluation());
    if (plan_.recipe != "diagnose") estimate.stages.push_back(OfExport(estimate.stages.back()));
    return estimate;
  }

 private:
  StageEstimate OfTraining(int64_t stage_index) {
    const StagePlan& stage = plan_.stages[static_cast<size_t>(stage_index)];
    const auto rehearsed =
        MakeStage(plan_, stage_index, inputs_.model, inputs_.parameters, collective_);
    const Rehearsal rehearsal{plan_.data.sequence_length, stage.batch_size / plan_.ranks,
                              [&](int64_t tokens) { return StageFlops(OfLength(tokens), stage); },
                              [&](const StepBatch& batch) { rehearsed->Rehearse(batch); }};
    StageEstimate expected;
    expected.stage = stage.kind;
    expected.stage_index = stage_index;
    expected.steps = stage.steps;
    expected.tokens = static_cast<double>(stage.steps * stage.batch_size * shape_.tokens);
    expected.flop_per_token = StageFlops(shape_, stage);
    expected.flop_per_second = RateOf(rehearsal);
    expected.memory_bytes = ProgramBytes() + BytesOfStage(shape_, plan_, stage).total();
    return expected;
  }

  StageEstimate OfEvaluation() {
    StageEstimate expected;
    expected.stage = "evaluate";
    expected.stage_index = static_cast<int64_t>(plan_.stages.size());
    const EvaluationOptions options = OptionsOf(plan_);
    const Rehearsal rehearsal{
        shape_.tokens, std::max<int64_t>(1, kGroupTokens / shape_.tokens),
        [&](int64_t tokens) { return ForwardFlops(OfLength(tokens), "hybrid"); },
        [&](const StepBatch& batch) {
          EvaluateSequences(inputs_.model, inputs_.parameters, batch.ids_BT, options);
        }};
    expected.flop_per_second = RateOf(rehearsal);
    const ForwardWork work = WorkOfEvaluation();
    expected.tokens = work.tokens;
    expected.flop_per_token = work.tokens > 0 ? work.flops / work.tokens : 0;
    const int64_t group = std::max(kGroupTokens, 2 * shape_.tokens);
    expected.memory_bytes = ProgramBytes() + BytesOfEvaluation(shape_, plan_, group).total();
    return expected;
  }

  // Of rank 0, which exports alone.
  StageEstimate OfExport(const StageEstimate& evaluation) const {
    StageEstimate expected;
    expected.stage = "export";
    expected.stage_index = static_cast<int64_t>(plan_.stages.size()) + 1;
    if (collective_.rank() != 0) return expected;
    const double per_token = evaluation.tokens > 0 ? evaluation.seconds() / evaluation.tokens *
                                                         static_cast<double>(plan_.ranks)
                                                   : 0;
    expected.given_seconds = ValueOr(
        ExportSeconds(plan_, inputs_.model, inputs_.parameters, per_token, clock_), RequireStorage);
    if (plan_.device == "cpu") {
      expected.memory_bytes = ProgramBytes() + BytesOfExport(shape_, plan_).total();
    }
    return expected;
  }

  ForwardWork WorkOfEvaluation() const {
    if (collective_.rank() != 0) return {};
    const auto validation =
        ValueOr(TokenShard::Open(JoinPath(plan_.data.tokens, "validation")), RequireData);
    return ValueOr(PlannedWork({plan_, inputs_.model, inputs_.parameters, *validation}),
                   RequireData);
  }

  CostShape OfLength(int64_t tokens) const {
    CostShape shape = shape_;
    shape.tokens = tokens;
    return shape;
  }

  // Device memory holds no program.
  double ProgramBytes() const { return plan_.device == "cpu" ? inputs_.program_bytes : 0; }

  // Useful operations per second of all ranks together.
  double RateOf(const Rehearsal& rehearsal) {
    const int64_t most = rehearsal.most_sequences * rehearsal.sequence_length;
    int64_t tokens = std::min(kFirstTokens, most);
    double seconds = SecondsOf(rehearsal, tokens);
    if (seconds < kNoWarmUp) seconds = SecondsOf(rehearsal, tokens);
    while (seconds < kLongEnough && tokens < most) {
      tokens = std::min(kGrowth * tokens, most);
      seconds = SecondsOf(rehearsal, tokens);
    }
    const int64_t length = std::min(tokens, rehearsal.sequence_length);
    const auto read = static_cast<double>(plan_.ranks * (tokens / length * length));
    return read * rehearsal.flop_per_token(length) / std::max(seconds, 1e-9);
  }

  void RunToItsEnd(const Rehearsal& rehearsal, const StepBatch& batch) {
    rehearsal.run(batch);
    WaitForDevice(inputs_.model.device());
  }

  // Of the slowest rank.
  double SecondsOf(const Rehearsal& rehearsal, int64_t tokens) {
    const int64_t length = std::min(tokens, rehearsal.sequence_length);
    StepBatch batch;
    batch.ids_BT =
        at::remainder(at::arange(tokens / length * length), inputs_.model.config().vocab_size)
            .view({tokens / length, length});
    // On a GPU a shape's first run loads the kernels that it takes, for seconds.
    if (plan_.device != "cpu") RunToItsEnd(rehearsal, batch);
    collective_.Barrier();
    const int64_t start_ns = clock_.MonotonicNs();
    RunToItsEnd(rehearsal, batch);
    const double mine = static_cast<double>(clock_.MonotonicNs() - start_ns) * 1e-9;
    const std::vector<double> all = collective_.AllGather(std::vector<double>{mine});
    return *std::max_element(all.begin(), all.end());
  }

  const CostEstimateInputs& inputs_;
  const Plan& plan_;
  const CostShape shape_;
  Collective& collective_;
  const Clock& clock_;
};

void LogStages(const Estimate& estimate) {
  for (const StageEstimate& stage : estimate.stages) {
    Log(LogLevel::kInfo, "stage_estimated",
        {{"stage", stage.stage},
         {"stage_index", stage.stage_index},
         {"steps", stage.steps},
         {"tokens", stage.tokens},
         {"seconds", stage.seconds()},
         {"memory_bytes", stage.memory_bytes},
         {"useful_gflop_per_second", stage.flop_per_second * 1e-9}});
  }
}

}  // namespace

void EstimateCost(const CostEstimateInputs& inputs, Collective& collective, const Clock& clock) {
  const std::string path = EstimatePath(inputs.plan.job_folder);
  const std::string mine = PathExists(path) ? "known" : "unknown";
  if (collective.Broadcast(mine, 0) == "known") return;
  const Estimate estimate = Estimator(inputs, collective, clock).Run();
  ResetPeakDeviceBytes(inputs.model.device());  // of the rehearsal, of no stage
  if (collective.rank() != 0) return;
  RequireStorage(WriteEstimate(inputs.plan.job_folder, estimate));
  LogStages(estimate);
}

}  // namespace tandem
