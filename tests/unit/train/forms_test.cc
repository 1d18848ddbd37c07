// Both stages on every attention form: gradients of the whole model against differences, and what
// retained groups leave alone. The forms' own mathematics is tested in tests/unit/attention.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/unit/train/tiny_model.h"
#include "worker/model/evaluation_forward.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/finetune.h"

namespace tandem::testing {
namespace {

struct FormCase {
  std::string name;
  AttentionForm form;
  bool tied = false;
  std::string mode = "hybrid", objective = "next_token", dropped_span = "all";
};

AttentionForm Small() {
  AttentionForm form;
  form.window = 4;
  return form;
}

std::vector<FormCase> Cases() {
  std::vector<FormCase> cases;
  const std::pair<const char*, FeatureMapKind> maps[] = {
      {"exp", FeatureMapKind::kExp},
      {"exp_shifted", FeatureMapKind::kExpShifted},
      {"relu", FeatureMapKind::kRelu},
      {"elu", FeatureMapKind::kElu}};
  for (const auto& [name, map] : maps) {
    FormCase of_map{name, Small()};
    of_map.form.map = map;
    of_map.tied = map == FeatureMapKind::kRelu;
    cases.push_back(of_map);
  }
  cases.push_back({"tied", Small(), true});
  cases.push_back({"terraced", Small()});
  cases.back().form.window_kind = WindowKind::kTerraced;
  cases.back().form.sinks = 2;
  cases.push_back({"affine", Small()});
  cases.back().form.affine = true;
  cases.push_back({"retained", Small()});
  cases.back().form.retained = {{1}, {0, 1}};
  cases.push_back({"retained, linear_only", cases.back().form, false, "linear_only"});
  cases.push_back({"window_only", Small(), false, "window_only"});
  cases.push_back({"distill", Small(), false, "hybrid", "distill"});
  cases.push_back({"mixture", Small(), false, "hybrid", "mixture"});
  cases.push_back({"dropped outside", Small(), false, "hybrid", "next_token", "outside"});
  return cases;
}

class FormsTest : public ::testing::TestWithParam<FormCase> {
 protected:
  FormsTest() {
    at::set_num_threads(1);  // tiny products: threads would only wait for each other
    Disturb(parameters_);
  }

  static ParameterOptions OptionsOf(const FormCase& of) {
    ParameterOptions options = TinyParameterOptions();
    options.feature_map = of.form.map;
    options.tie_kv_heads = of.tied;
    return options;
  }

  // Along a random direction of every trained tensor.
  void ExpectDifferences(const std::map<std::string, at::Tensor>& gradients,
                         const std::function<double()>& loss) {
    ASSERT_FALSE(gradients.empty());
    for (const auto& [name, gradient] : gradients) {
      const at::Tensor& parameter = parameters_.tensors().at(name);
      ASSERT_EQ(gradient.sizes(), parameter.sizes()) << name;
      const at::Tensor direction = RandomTensor(gradient.sizes(), 1.0, 77);
      const double slope = gradient.mul(direction).sum().item<double>();
      // Maps with kinks (relu's edge, which entry is the largest) need a step that crosses few.
      const FeatureMapKind map = GetParam().form.map;
      const bool kinks = map == FeatureMapKind::kRelu || map == FeatureMapKind::kExpShifted;
      const double h = kinks ? 2e-4 : 2e-3;
      const at::Tensor start = parameter.clone();
      parameter.copy_(start.add(direction, h));
      const double up = loss();
      parameter.copy_(start.sub(direction, h));
      const double down = loss();
      parameter.copy_(start);
      // Losses near 4 carry 1e-6 of rounding, twice in the difference (finetune_test.cc).
      EXPECT_NEAR((up - down) / (2 * h), slope, 0.02 * std::abs(slope) + 2e-6 / h) << name;
    }
  }

  std::unique_ptr<Llama> model_ = TinyModel();
  Parameters parameters_{model_->config(), OptionsOf(GetParam())};
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
  StepBatch batch_{RandomIds(3, 20, 64, 1), 0};
};

TEST_P(FormsTest, FinetuneAgreesWithFiniteDifferences) {
  FinetuneOptions options;
  options.attention = GetParam().form;
  options.mode = GetParam().mode;
  options.objective = GetParam().objective;
  options.dropped_span = GetParam().dropped_span;
  options.train_maps = options.train_factor = true;
  Finetune stage(*model_, parameters_, *solo_, options);
  const bool drops = options.dropped_span == "outside";
  const auto rule = [&](int64_t sample, int64_t) { return drops && sample != 1; };
  GradientMap gradients;
  stage.LossAndGradients(batch_, rule, gradients);
  ExpectDifferences(gradients, [&] {
    GradientMap unread;
    return stage.LossAndGradients(batch_, rule, unread);
  });
  const bool maps = GetParam().mode != "window_only";
  EXPECT_EQ(gradients.contains("layers.0.feature_map_q"), maps);
  EXPECT_EQ(gradients.contains("layers.0.feature_map_k_bias"),
            GetParam().form.map == FeatureMapKind::kRelu);
  EXPECT_EQ(gradients.contains("layers.0.window_factor"), GetParam().mode == "hybrid");
}

TEST_P(FormsTest, EvaluationRunsTheTrainedForm) {
  if (GetParam().objective != "next_token") GTEST_SKIP() << "trains another loss";
  FinetuneOptions options;
  options.attention = GetParam().form;
  options.mode = GetParam().mode;
  Finetune stage(*model_, parameters_, *solo_, options);
  GradientMap unread;
  const double loss = stage.LossAndGradients(
      batch_, [](int64_t, int64_t) { return false; }, unread);
  EvaluationOptions evaluation;
  evaluation.attention = GetParam().form;
  evaluation.mode = ComponentModeFromName(GetParam().mode).value();
  const at::Tensor losses =
      EvaluateSequences(*model_, parameters_, batch_.ids_BT, evaluation).losses;
  EXPECT_NEAR(losses.mean().item<double>(), loss, 1e-5);
}

TEST_P(FormsTest, EveryObjectiveOfTransferLearns) {
  if (GetParam().mode != "hybrid" || GetParam().objective != "next_token" ||
      GetParam().dropped_span != "all")
    GTEST_SKIP() << "a matter of finetuning";
  for (const char* objective : {"weights", "outputs", "hybrid_outputs", "hybrid_weights"}) {
    const Parameters parameters(model_->config(), OptionsOf(GetParam()));
    const at::Tensor retained_before = parameters.layer(1).feature_map_q.clone();
    AttentionTransferOptions options;
    options.objective = objective;
    options.attention = GetParam().form;
    options.schedule = {3e-3, 0, 20, true};
    AttentionTransfer stage(*model_, parameters, *solo_, options);
    const double first = stage.Step(0, batch_).loss;
    double last = first;
    for (int64_t step = 1; step < 20; ++step) last = stage.Step(step, batch_).loss;
    EXPECT_LT(last, first) << objective;
    const bool is_retained = !GetParam().form.retained.empty();
    EXPECT_EQ(parameters.layer(1).feature_map_q.equal(retained_before), is_retained) << objective;
  }
}

INSTANTIATE_TEST_SUITE_P(Train, FormsTest, ::testing::ValuesIn(Cases()), [](const auto& of) {
  std::string name = of.param.name;
  for (char& c : name)
    if (c == ' ' || c == ',') c = '_';
  return name;
});

}  // namespace
}  // namespace tandem::testing
