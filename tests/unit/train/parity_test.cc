// Whole-model parity with the anchor, against its fp64 numbers: losses and logits 1e-4, gradients
// 1e-3, relative to the largest entry of each tensor. What plain PyTorch loses in fp32 is 4e-6.
#include <ATen/Parallel.h>
#include <ATen/ops/abs.h>
#include <c10/core/GradMode.h>

#include <nlohmann/json.hpp>

#include "tests/unit/train/anchor.h"
#include "worker/comm/collective.h"
#include "worker/model/evaluation_forward.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/finetune.h"

namespace tandem::testing {
namespace {

constexpr double kOutputTolerance = 1e-4, kGradientTolerance = 1e-3;
// Gradients that are zero in exact arithmetic (theta where T <= w) hold rounding noise.
constexpr double kNoise = 1e-7;

struct ParityCase {
  const char* name;
  int64_t T, window, batch, seed;
};

constexpr ParityCase kCases[] = {
    {"t40_w16", 40, 16, 1, 3}, {"t32_w64", 32, 64, 1, 4}, {"t100_w16_b2", 100, 16, 2, 5}};

std::string DumpArguments(const ParityCase& c) {
  return "--seq-len " + std::to_string(c.T) + " --window " + std::to_string(c.window) +
         " --batch " + std::to_string(c.batch) + " --seed " + std::to_string(c.seed) +
         " --init random --dump-parity @OUT/" + c.name;
}

class Parity : public ::testing::TestWithParam<ParityCase> {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNoAnchor(); !why.empty()) GTEST_SKIP() << why;
    const ParityCase& c = GetParam();
    at::set_num_threads(1);
    ASSERT_TRUE(AnchorHasRun());
    const std::string folder = AnchorFolder() + "/" + c.name;
    expected_ = ReadTensors(folder + "/fp64.safetensors");
    const auto inputs = ReadTensors(folder + "/inputs.safetensors");
    model_ = Llama::Load(AnchorModel()).value();
    parameters_ = std::make_unique<Parameters>(model_->config(), AnchorParameterOptions());
    CopyStart(inputs, *parameters_);
    batch_.ids_BT = inputs.at("ids").to(at::kLong);
    attention_.window = c.window;
  }

  void ExpectClose(const at::Tensor& actual, const std::string& name, double tolerance) {
    ASSERT_TRUE(actual.defined()) << name;
    const at::Tensor& wanted = expected_.at(name);
    ASSERT_EQ(actual.sizes(), wanted.sizes()) << name;
    const double scale = wanted.abs().max().item<double>();
    const double worst = actual.to(at::kDouble).sub(wanted).abs().max().item<double>();
    EXPECT_LE(worst, tolerance * scale + kNoise)
        << name << " " << wanted.sizes() << ": worst difference " << worst << ", largest entry "
        << scale << ", share of tolerance " << worst / (tolerance * scale + kNoise);
  }

  void ExpectGradients(const GradientMap& gradients, const std::string& key) {
    size_t compared = 0;
    for (const auto& [name, wanted] : expected_) {
      const std::string prefix = key + ".grad.";
      if (!name.starts_with(prefix)) continue;
      const std::string parameter = name.substr(prefix.size());
      ASSERT_TRUE(gradients.contains(parameter)) << parameter;
      ExpectClose(gradients.at(parameter), name, kGradientTolerance);
      ++compared;
    }
    EXPECT_GT(compared, 0U) << key;
    EXPECT_EQ(compared, gradients.size()) << key;
  }

  void CheckTransfer(const std::string& objective) {
    AttentionTransferOptions options;
    options.objective = objective;
    options.attention = attention_;
    AttentionTransfer stage(*model_, *parameters_, *solo_, options);
    GradientMap gradients;
    const std::vector<double> losses = stage.LossesAndGradients(batch_, gradients);
    const at::Tensor& wanted = expected_.at("stage1." + objective + ".layer_losses");
    ASSERT_EQ(static_cast<int64_t>(losses.size()), wanted.numel());
    for (size_t i = 0; i < losses.size(); ++i) {
      const double value = wanted.data_ptr<double>()[i];
      EXPECT_NEAR(losses[i], value, kOutputTolerance * std::abs(value) + kNoise) << "layer " << i;
    }
    ExpectGradients(gradients, "stage1." + objective);
  }

  void CheckFinetune(const std::string& key) {
    FinetuneOptions options;
    options.attention = attention_;
    options.attention.detach_max = key == "detach";
    options.train_maps = true;
    options.train_factor = true;
    Finetune stage(*model_, *parameters_, *solo_, options);
    GradientMap gradients;
    const double loss = stage.LossAndGradients(
        batch_, [&](int64_t, int64_t) { return key == "dropped"; }, gradients);
    const double wanted = expected_.at("stage2." + key + ".loss").item<double>();
    EXPECT_NEAR(loss, wanted, kOutputTolerance * wanted);
    ExpectGradients(gradients, "stage2." + key);
    EvaluationOptions forward;
    forward.mode = key == "dropped" ? ComponentMode::kLinearOnly : ComponentMode::kHybrid;
    forward.attention = attention_;
    const at::Tensor logits = EvaluateLogits(*model_, *parameters_, batch_.ids_BT, forward);
    ExpectClose(logits.select(1, -1), "stage2." + key + ".logits_last", kOutputTolerance);
  }

  std::map<std::string, at::Tensor> expected_;
  std::unique_ptr<Llama> model_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
  StepBatch batch_;
  AttentionForm attention_;
};

TEST_P(Parity, BaseModel) {
  EvaluationOptions options;
  options.mode = ComponentMode::kSoftmax;
  const at::Tensor losses = EvaluateSequences(*model_, *parameters_, batch_.ids_BT, options).losses;
  const double wanted = expected_.at("base.loss").item<double>();
  EXPECT_NEAR(losses.mean().item<double>(), wanted, kOutputTolerance * wanted);
  const at::Tensor logits = EvaluateLogits(*model_, *parameters_, batch_.ids_BT, options);
  ExpectClose(logits.select(1, -1), "base.logits_last", kOutputTolerance);
}

TEST_P(Parity, TransferByHybridOutputs) {
  CheckTransfer("hybrid_outputs");
}
TEST_P(Parity, TransferByWeights) {
  CheckTransfer("weights");
}
TEST_P(Parity, FinetuneThroughTheMaximum) {
  CheckFinetune("through");
}
TEST_P(Parity, FinetuneWithTheMaximumDetached) {
  CheckFinetune("detach");
}
TEST_P(Parity, FinetuneWithTheWindowDropped) {
  CheckFinetune("dropped");
}

INSTANTIATE_TEST_SUITE_P(Anchor, Parity, ::testing::ValuesIn(kCases),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace

bool AnchorHasRun() {
  static const bool has_run = [] {
    std::vector<std::string> lines;
    for (const ParityCase& c : kCases) lines.push_back(DumpArguments(c));
    for (const std::string& line : LossCurveRuns()) lines.push_back(line);
    return RunAnchor(lines);
  }();
  return has_run;
}

}  // namespace tandem::testing
