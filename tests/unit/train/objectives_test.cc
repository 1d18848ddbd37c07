// What finetuning learns from, and in which mode: distillation, mixtures, the window alone, the
// dropped window's span and window sizes over time: values against the evaluation's own forward
// pass. Gradients are in forms_test.cc.
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include "tests/unit/train/finetune_fixture.h"
#include "worker/model/evaluation_forward.h"
#include "worker/train/schedule.h"

namespace tandem::testing {
namespace {

class ObjectivesTest : public FinetuneFixture {
 protected:
  at::Tensor LogProbabilities(ComponentMode mode) const {
    EvaluationOptions options;
    options.attention.window = 4;
    options.mode = mode;
    const int64_t T = batch_.ids_BT.size(1);
    return at::log_softmax(
        EvaluateLogits(*model_, parameters_, batch_.ids_BT, options).narrow(1, 0, T - 1), 2);
  }

  double EvaluationLoss(ComponentMode mode, int64_t window) const {
    EvaluationOptions options;
    options.attention.window = window;
    options.mode = mode;
    return EvaluateSequences(*model_, parameters_, batch_.ids_BT, options)
        .losses.mean()
        .item<double>();
  }
};

TEST_F(ObjectivesTest, DistillationIsTheDivergenceFromTheBase) {
  FinetuneOptions options = Options();
  options.objective = "distill";
  Finetune stage(*model_, parameters_, *solo_, options);
  const at::Tensor teacher = LogProbabilities(ComponentMode::kSoftmax);
  const at::Tensor student = LogProbabilities(ComponentMode::kHybrid);
  const double wanted = teacher.exp().mul(teacher.sub(student)).sum(2).mean().item<double>();
  EXPECT_GT(wanted, 0.01);
  EXPECT_NEAR(Loss(stage, batch_, &Never), wanted, 1e-5);
  const double next_token = EvaluationLoss(ComponentMode::kHybrid, 4);
  options.objective = "mixture";
  options.distill_weight = 0.3;
  Finetune mixture(*model_, parameters_, *solo_, options);
  EXPECT_NEAR(Loss(mixture, batch_, &Never), 0.3 * wanted + 0.7 * next_token, 1e-5);
}

TEST_F(ObjectivesTest, DistillationCountsLabelsOnly) {
  FinetuneOptions options = Options();
  options.objective = "distill";
  const at::Tensor teacher = LogProbabilities(ComponentMode::kSoftmax);
  const at::Tensor student = LogProbabilities(ComponentMode::kHybrid);
  const at::Tensor rows = teacher.exp().mul(teacher.sub(student)).sum(2);
  batch_.label_mask_BT = at::full({3, 20}, 0, at::kByte);
  batch_.label_mask_BT.narrow(0, 1, 1).narrow(1, 7, 5).fill_(1);  // predicted by rows 6 ... 10
  Finetune stage(*model_, parameters_, *solo_, options);
  EXPECT_NEAR(Loss(stage, batch_, &Never), rows.select(0, 1).narrow(0, 6, 5).mean().item<double>(),
              1e-5);
}

TEST_F(ObjectivesTest, TheWindowAloneTrainsLoraAndNothingElse) {
  FinetuneOptions options = Options();
  options.mode = "window_only";
  options.train_maps = options.train_factor = false;
  Finetune stage(*model_, parameters_, *solo_, options);
  EXPECT_NEAR(Loss(stage, batch_, &Never), EvaluationLoss(ComponentMode::kWindowOnly, 4), 1e-5);
  const at::Tensor map = parameters_.layer(0).feature_map_q.clone();
  const double first = stage.Step(0, batch_).loss;
  double last = first;
  for (int64_t step = 1; step < 20; ++step) last = stage.Step(step, batch_).loss;
  EXPECT_LT(last, first - 0.1);
  EXPECT_TRUE(map.equal(parameters_.layer(0).feature_map_q));
}

TEST_F(ObjectivesTest, ADroppedWindowMayKeepTheSpanOutside) {
  FinetuneOptions options = Options();
  options.dropped_span = "outside";
  const auto rule = [](int64_t sample, int64_t layer) { return sample == 1 || layer == 1; };
  Finetune outside(*model_, parameters_, *solo_, options);
  options.dropped_span = "all";
  Finetune all(*model_, parameters_, *solo_, options);
  EXPECT_GT(std::abs(Loss(outside, batch_, rule) - Loss(all, batch_, rule)), 1e-4);
}

TEST_F(ObjectivesTest, MapsAndFactorsTrainApart) {
  FinetuneOptions options = Options();
  options.train_maps = false;
  Finetune stage(*model_, parameters_, *solo_, options);
  GradientMap gradients;
  Loss(stage, batch_, &Never, &gradients);
  EXPECT_TRUE(gradients.contains("layers.0.window_factor"));
  EXPECT_FALSE(gradients.contains("layers.0.feature_map_q"));
}

TEST_F(ObjectivesTest, TheWindowGrowsBySchedule) {
  FinetuneOptions options = Options();
  options.attention.window = 8;
  options.schedule = {1e-12, 0, 4, true};  // the parameters stay as they are
  options.window_schedule = {2, 8};
  Finetune stage(*model_, parameters_, *solo_, options);
  for (const auto& [step, window] : {std::pair{0, 2}, {1, 2}, {2, 8}, {3, 8}}) {
    EXPECT_NEAR(stage.Step(step, batch_).loss, EvaluationLoss(ComponentMode::kHybrid, window), 1e-5)
        << "step " << step;
  }
}

TEST(WindowSizeAt, FollowsTheRuleOfTheDropout) {
  EXPECT_EQ(WindowSizeAt({}, 3, 10, 64), 64);
  EXPECT_EQ(WindowSizeAt({4, 8, 16}, 0, 10, 64), 4);
  EXPECT_EQ(WindowSizeAt({4, 8, 16}, 3, 10, 64), 4);
  EXPECT_EQ(WindowSizeAt({4, 8, 16}, 4, 10, 64), 8);
  EXPECT_EQ(WindowSizeAt({4, 8, 16}, 9, 10, 64), 16);
}

}  // namespace
}  // namespace tandem::testing
