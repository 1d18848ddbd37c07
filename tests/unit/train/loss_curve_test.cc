// Twenty steps of both stages beside the anchor: constant rate, no clipping, chunks in file order.
// Losses agree to 1e-4 relative, whole curves, so optimiser and gradients agree too.
#include <ATen/Parallel.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/unit/train/anchor.h"
#include "worker/comm/collective.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/finetune.h"

namespace tandem::testing {
namespace {

constexpr double kTolerance = 1e-4;
constexpr int64_t kT = 96, kWindow = 16, kBatch = 2, kSteps = 20;

// Options of the anchor by the name of their run.
const std::map<std::string, std::string> kRuns = {
    {"hybrid_outputs", "--stage 1 --objective hybrid_outputs"},
    {"weights", "--stage 1 --objective weights"},
    {"lora", "--stage 2 --lr 1e-3"},
    {"maps_with_dropout", "--stage 2 --lr 1e-3 --train-maps --window-dropout 0.5"}};

struct AnchorStep {
  double loss = 0;
  std::vector<double> layers;
  bool window_dropped = false;
};

class LossCurve : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNoAnchor(); !why.empty()) GTEST_SKIP() << why;
    at::set_num_threads(1);
    ASSERT_TRUE(AnchorHasRun());
    model_ = Llama::Load(AnchorModel()).value();
    parameters_ = std::make_unique<Parameters>(model_->config(), AnchorParameterOptions());
    CopyStart(ReadTensors(AnchorFolder() + "/curve_start/inputs.safetensors"), *parameters_);
    ReadIds();
  }

  void ReadIds() {
    ids_ = at::empty({kBatch * kSteps, kT}, at::kLong);
    const std::string raw = ReadFile(AnchorFolder() + "/tokens.u16").value();
    ASSERT_GE(static_cast<int64_t>(raw.size()), 2 * ids_.numel());
    int64_t* ids = ids_.data_ptr<int64_t>();
    for (size_t i = 0; i < static_cast<size_t>(ids_.numel()); ++i) {
      uint16_t id = 0;
      std::memcpy(&id, raw.data() + 2 * i, 2);
      ids[i] = id;
    }
  }

  static std::vector<AnchorStep> AnchorSteps(const std::string& run) {
    const std::string losses = AnchorFolder() + "/" + run + ".jsonl";
    std::vector<AnchorStep> steps;
    std::istringstream lines(ReadFile(losses).value());
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json json = nlohmann::json::parse(line);
      steps.push_back({json["loss"], json["layers"], json["window_dropped"]});
    }
    EXPECT_EQ(steps.size(), static_cast<size_t>(kSteps));
    return steps;
  }

  StepBatch BatchAt(int64_t step) const { return {ids_.narrow(0, step * kBatch, kBatch), 0}; }

  static LearningRateSchedule Constant(double rate) {
    LearningRateSchedule schedule;
    schedule.peak = rate;
    schedule.constant = true;
    return schedule;
  }

  void CheckTransfer(const std::string& objective) {
    AttentionTransferOptions options;
    options.objective = objective;
    options.attention.window = kWindow;
    options.schedule = Constant(1e-2);
    AttentionTransfer stage(*model_, *parameters_, *solo_, options);
    const auto wanted = AnchorSteps(objective);
    for (int64_t step = 0; step < kSteps; ++step) {
      const AnchorStep& expected = wanted[static_cast<size_t>(step)];
      const StepReport report = stage.Step(step, BatchAt(step));
      EXPECT_NEAR(report.loss, expected.loss, kTolerance * expected.loss) << "step " << step;
      for (size_t i = 0; i < expected.layers.size(); ++i) {
        EXPECT_NEAR(report.layer_losses[i], expected.layers[i], kTolerance * expected.layers[i])
            << "step " << step << ", layer " << i;
      }
    }
  }

  std::unique_ptr<Llama> model_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
  at::Tensor ids_;
};

TEST_F(LossCurve, TransferByHybridOutputs) {
  CheckTransfer("hybrid_outputs");
}
TEST_F(LossCurve, TransferByWeights) {
  CheckTransfer("weights");
}

TEST_F(LossCurve, FinetuneOfLora) {
  FinetuneOptions options;
  options.attention.window = kWindow;
  options.schedule = Constant(1e-3);
  options.clip_norm = 0;
  Finetune stage(*model_, *parameters_, *solo_, options);
  const auto wanted = AnchorSteps("lora");
  for (int64_t step = 0; step < kSteps; ++step) {
    const double loss = wanted[static_cast<size_t>(step)].loss;
    EXPECT_NEAR(stage.Step(step, BatchAt(step)).loss, loss, kTolerance * loss) << "step " << step;
  }
}

// The anchor draws its own coins; theta gets no update in steps without a window.
TEST_F(LossCurve, FinetuneOfMapsWithWindowDropout) {
  FinetuneOptions options;
  options.attention.window = kWindow;
  options.train_maps = true;
  options.train_factor = true;
  Finetune stage(*model_, *parameters_, *solo_, options);
  AdamW optimiser(parameters_->tensors());
  const auto wanted = AnchorSteps("maps_with_dropout");
  for (int64_t step = 0; step < kSteps; ++step) {
    const AnchorStep& expected = wanted[static_cast<size_t>(step)];
    GradientMap gradients;
    const double loss = stage.LossAndGradients(
        BatchAt(step), [&](int64_t, int64_t) { return expected.window_dropped; }, gradients);
    EXPECT_NEAR(loss, expected.loss, kTolerance * expected.loss) << "step " << step;
    optimiser.Step(gradients, 1e-3);
  }
}

}  // namespace

// The same seed gives the start values of a dump and of a run that trains.
std::vector<std::string> LossCurveRuns() {
  const std::string shape = "--seq-len " + std::to_string(kT) + " --window " +
                            std::to_string(kWindow) + " --batch " + std::to_string(kBatch) +
                            " --init random --seed 3 ";
  std::vector<std::string> lines = {shape + "--dump-parity @OUT/curve_start"};
  for (const auto& [name, options] : kRuns) {
    lines.push_back(shape + "--steps 17 --warmup 3 " + options + " --export-losses @OUT/" + name +
                    ".jsonl");
  }
  return lines;
}

}  // namespace tandem::testing
