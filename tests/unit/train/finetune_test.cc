// Finetuning on a tiny model: what no parity vector covers. Values and gradients against the
// anchor are in parity_test.cc.
#include "worker/train/finetune.h"

#include <gtest/gtest.h>

#include "tests/unit/train/finetune_fixture.h"
#include "worker/model/evaluation_forward.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/lora_start.h"

namespace tandem::testing {
namespace {

class FinetuneTest : public FinetuneFixture {};

TEST_F(FinetuneTest, GradientsAgreeWithFiniteDifferences) {
  Finetune stage(*model_, parameters_, *solo_, Options());
  const auto rule = [](int64_t sample, int64_t layer) { return sample == 1 || layer == 1; };
  GradientMap gradients;
  Loss(stage, batch_, rule, &gradients);
  for (const auto& [name, gradient] : gradients) {
    const at::Tensor direction = RandomTensor(gradient.sizes(), 1.0, 77);
    const double slope = gradient.mul(direction).sum().item<double>();
    const double h = 2e-3;
    const at::Tensor& parameter = parameters_.tensors().at(name);
    const at::Tensor start = parameter.clone();
    parameter.copy_(start.add(direction, h));
    const double up = Loss(stage, batch_, rule);
    parameter.copy_(start.sub(direction, h));
    const double down = Loss(stage, batch_, rule);
    parameter.copy_(start);
    // Losses near 4 carry 1e-6 of rounding: 5e-4 of slope at this h.
    EXPECT_NEAR((up - down) / (2 * h), slope, 0.02 * std::abs(slope) + 1e-3) << name;
  }
  EXPECT_FALSE(gradients.contains("layers.1.window_factor"));  // no window in that layer
  EXPECT_TRUE(gradients.contains("layers.0.window_factor"));
}

// A batch in which some rows drop their window is the mean of those rows alone.
TEST_F(FinetuneTest, RowsWithAndWithoutWindowAreIndependent) {
  Finetune stage(*model_, parameters_, *solo_, Options());
  const auto rule = [](int64_t sample, int64_t) { return sample != 1; };
  double sum = 0;
  for (int64_t b = 0; b < 3; ++b) {
    sum += Loss(stage, {batch_.ids_BT.narrow(0, b, 1), b}, rule);
  }
  EXPECT_NEAR(Loss(stage, batch_, rule), sum / 3, 1e-5);
}

TEST_F(FinetuneTest, TrainingLossIsTheEvaluationLoss) {
  Finetune stage(*model_, parameters_, *solo_, Options());
  EvaluationOptions options;
  options.attention.window = 4;
  for (const bool dropped : {false, true}) {
    options.mode = dropped ? ComponentMode::kLinearOnly : ComponentMode::kHybrid;
    const double wanted = EvaluateSequences(*model_, parameters_, batch_.ids_BT, options)
                              .losses.mean()
                              .item<double>();
    EXPECT_NEAR(Loss(stage, batch_, [&](int64_t, int64_t) { return dropped; }), wanted, 1e-5);
  }
}

// With a mask the loss is the mean over the labels of the whole batch; what is no label has no
// part.
TEST_F(FinetuneTest, MaskedLossIsTheMeanOverTheLabels) {
  Finetune stage(*model_, parameters_, *solo_, Options());
  at::Tensor mask = RandomIds(3, 20, 2, 5).to(at::kByte);
  mask.select(0, 1).zero_();
  mask[1][19] = 1;  // one label in that sequence, and its row is the last that predicts
  const StepBatch masked{batch_.ids_BT, 0, mask};
  EvaluationOptions options;
  options.attention.window = 4;
  options.mode = ComponentMode::kHybrid;
  const at::Tensor losses =
      EvaluateSequences(*model_, parameters_, batch_.ids_BT, options).losses.to(at::kDouble);
  const at::Tensor weights = mask.narrow(1, 1, 19).to(at::kDouble);
  const double wanted = losses.mul(weights).sum().item<double>() / weights.sum().item<double>();
  EXPECT_NEAR(Loss(stage, masked, &Never), wanted, 1e-5);
  const StepBatch all{batch_.ids_BT, 0, mask.clone().fill_(1)};
  EXPECT_NEAR(Loss(stage, all, &Never), Loss(stage, batch_, &Never), 1e-6);
}

// Two ranks' sums over their own labels, each over the labels of both.
TEST_F(FinetuneTest, MaskedBatchesOfRanksAddUpByTheirLabels) {
  Finetune stage(*model_, parameters_, *solo_, Options());
  at::Tensor mask = RandomIds(3, 20, 2, 6).to(at::kByte);
  double sum = 0, labels = 0;
  for (int64_t b = 0; b < 3; ++b) {
    const at::Tensor of_row = mask.narrow(0, b, 1);
    const auto count = of_row.narrow(1, 1, 19).sum().item<double>();
    sum += count * Loss(stage, {batch_.ids_BT.narrow(0, b, 1), b, of_row}, &Never);
    labels += count;
  }
  EXPECT_NEAR(Loss(stage, {batch_.ids_BT, 0, mask}, &Never), sum / labels, 1e-5);
}

// The first of two ranks; the other one adds nothing to the sums.
class FirstOfTwo : public Collective {
 public:
  int64_t rank() const override { return 0; }
  int64_t size() const override { return 2; }
  void AllReduceSum(std::span<float>) override {}
  void AllReduceSum(std::span<double>) override {}
  std::vector<double> AllGather(std::span<const double> part) override {
    return {part.begin(), part.end()};
  }
  std::string Broadcast(const std::string& text, int64_t) override { return text; }
  void Barrier() override {}
  int64_t Agree(int64_t mine) override { return mine; }
};

// All ranks bring the same names to the sum, or it hangs: windows that are off in all of this
// rank's sequences, but not in the other's (samples 3 ... 5), bring zeros.
TEST_F(FinetuneTest, AFactorWithoutAWindowOnThisRankBringsZeros) {
  FirstOfTwo ranks;
  Finetune stage(*model_, parameters_, ranks, Options());
  GradientMap here, nowhere;
  Loss(
      stage, batch_, [](int64_t sample, int64_t) { return sample < 3; }, &here);
  ASSERT_TRUE(here.contains("layers.0.window_factor"));
  EXPECT_EQ(here.at("layers.0.window_factor").abs().max().item<double>(), 0.0);
  Loss(
      stage, batch_, [](int64_t, int64_t) { return true; }, &nowhere);
  EXPECT_FALSE(nowhere.contains("layers.0.window_factor"));
}

TEST_F(FinetuneTest, ClippingBoundsTheFirstStepsMoments) {
  FinetuneOptions options = Options();
  options.clip_norm = 1e-3;
  Finetune stage(*model_, parameters_, *solo_, options);
  const StepReport report = stage.Step(0, batch_);
  EXPECT_GT(report.grad_norm, 1e-2);
  double squares = 0;  // after one step m = 0.1 g
  for (const auto& [name, tensor] : stage.State()) {
    if (name.starts_with("adam.m.")) squares += tensor.square().sum().item<double>();
  }
  EXPECT_NEAR(std::sqrt(squares), 1e-4, 1e-6);
}

TEST_F(FinetuneTest, LossFallsAndOnlyTrainedTensorsMove) {
  FinetuneOptions options = Options();
  options.train_maps = false;
  options.train_factor = false;
  Finetune stage(*model_, parameters_, *solo_, options);
  std::map<std::string, at::Tensor> before;
  for (const auto& [name, tensor] : parameters_.tensors()) before[name] = tensor.clone();
  const double first = stage.Step(0, batch_).loss;
  double last = first;
  for (int64_t step = 1; step < 20; ++step) last = stage.Step(step, batch_).loss;
  EXPECT_LT(last, first - 0.1);
  for (const auto& [name, tensor] : parameters_.tensors()) {
    EXPECT_EQ(tensor.equal(before.at(name)), name.find("lora") == std::string::npos) << name;
  }
}

TEST_F(FinetuneTest, ALossThatIsNotFiniteStopsBeforeTheUpdate) {
  Finetune stage(*model_, parameters_, *solo_, Options());
  const at::Tensor& map = parameters_.layer(0).feature_map_q;
  const at::Tensor other = parameters_.layer(1).feature_map_k.clone();
  map.fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THROW(stage.Step(0, batch_), NonFiniteLoss);
  EXPECT_TRUE(parameters_.layer(1).feature_map_k.equal(other));
}

// N steps, a copy of the state into fresh objects, N more: bitwise the 2N steps of one run.
TEST_F(FinetuneTest, ResumesBitForBit) {
  FinetuneOptions options = Options();
  options.dropout = {{0.5}, "row", 8};
  Finetune stage(*model_, parameters_, *solo_, options);
  Parameters copied(model_->config(), TinyParameterOptions());
  Finetune resumed(*model_, copied, *solo_, options);
  for (int64_t step = 0; step < 4; ++step) stage.Step(step, batch_);
  for (const auto& [name, tensor] : stage.State()) resumed.State().at(name).copy_(tensor);
  for (int64_t step = 4; step < 8; ++step) {
    EXPECT_EQ(stage.Step(step, batch_).loss, resumed.Step(step, batch_).loss) << step;
  }
  for (const auto& [name, tensor] : stage.State()) {
    EXPECT_TRUE(tensor.equal(resumed.State().at(name))) << name;
  }
}

TEST(LoraStart, DrawsWithinTheBoundAndLeavesBZero) {
  const Parameters parameters(TinyConfig(), TinyParameterOptions());
  DrawLoraStart(5, parameters);
  const Parameters again(TinyConfig(), TinyParameterOptions());
  DrawLoraStart(5, again);
  const at::Tensor a = parameters.layer(0).q.a;
  EXPECT_LE(a.abs().max().item<double>(), 1 / std::sqrt(32.0));
  EXPECT_GT(a.abs().max().item<double>(), 0.9 / std::sqrt(32.0));
  EXPECT_FALSE(a.equal(parameters.layer(0).k.a));
  EXPECT_FALSE(a.equal(parameters.layer(1).q.a));
  EXPECT_TRUE(a.equal(again.layer(0).q.a));
  EXPECT_EQ(parameters.layer(0).q.b.abs().max().item<double>(), 0.0);
}

class TransferTest : public FinetuneTest {};

// theta is trained by exp, too, and both activations agree where their gammas do.
TEST_F(TransferTest, ExpFactorsHaveTheSameLossAndScaledGradient) {
  ParameterOptions with_exp = TinyParameterOptions();
  with_exp.mixing_factor = "exp";
  const Parameters parameters(model_->config(), TinyParameterOptions()),
      exponential(model_->config(), with_exp);
  AttentionTransferOptions options;
  options.objective = "hybrid_outputs";
  options.attention.window = 4;
  AttentionTransfer a(*model_, parameters, *solo_, options),
      b(*model_, exponential, *solo_, options);
  GradientMap ga, gb;
  const auto la = a.LossesAndGradients(batch_, ga), lb = b.LossesAndGradients(batch_, gb);
  for (size_t i = 0; i < la.size(); ++i) EXPECT_NEAR(la[i], lb[i], 1e-4 * la[i]);
  const at::Tensor sigmoid = ga.at("layers.0.window_factor"), exp = gb.at("layers.0.window_factor");
  // d/dtheta: gamma (1 - gamma) by sigmoid, gamma by exp; gamma = 0.1.
  EXPECT_LT(sigmoid.sub(exp.mul(0.9)).abs().max().item<double>(),
            1e-3 * exp.abs().max().item<double>());
}

TEST_F(TransferTest, LossFallsAndLoraStays) {
  const Parameters parameters(model_->config(), TinyParameterOptions());
  for (const char* objective : {"weights", "hybrid_outputs"}) {
    AttentionTransferOptions options;
    options.objective = objective;
    options.attention.window = 4;
    options.schedule = {1e-2, 0, 20, true};
    AttentionTransfer stage(*model_, parameters, *solo_, options);
    const double first = stage.Step(0, batch_).loss;
    double last = first;
    for (int64_t step = 1; step < 20; ++step) last = stage.Step(step, batch_).loss;
    EXPECT_LT(last, first) << objective;
  }
  EXPECT_EQ(parameters.layer(0).q.b.abs().max().item<double>(), 0.0);
}

// One weight of one map: the other features of that token must not hide it.
TEST_F(TransferTest, OneWeightThatIsNotFiniteStopsTransferByEveryObjective) {
  parameters_.layer(1).feature_map_k.view({-1}).narrow(0, 3, 1).fill_(
      std::numeric_limits<float>::quiet_NaN());
  for (const char* objective : {"weights", "outputs", "hybrid_outputs", "hybrid_weights"}) {
    AttentionTransferOptions options;
    options.objective = objective;
    options.attention.window = 4;
    AttentionTransfer stage(*model_, parameters_, *solo_, options);
    EXPECT_THROW(stage.Step(0, batch_), NonFiniteLoss) << objective;
  }
}

}  // namespace
}  // namespace tandem::testing
