// Both stages on every attention form and option: losses and gradients of the whole model against
// the plain one in double, and what retained groups leave alone. The forms' own mathematics is
// tested in tests/unit/attention.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/unit/attention/tensor_compare.h"
#include "tests/unit/train/plain_model.h"
#include "tests/unit/train/tiny_model.h"
#include "worker/model/evaluation_forward.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/finetune.h"

namespace tandem::testing {
namespace {

// Of the largest entry of a gradient: fp32 sums of a few hundred terms through two layers. Entries
// far below kSmallGradient are the rounding of losses near 4.
constexpr double kGradientTolerance = 1e-4, kSmallGradient = 2e-4;

struct FormCase {
  std::string name;
  AttentionForm form;
  bool tied = false;
  std::string mode = "hybrid", objective = "next_token", dropped_span = "all";
  bool drops = false;      // windows of some sequences and layers
  bool labelled = false;   // a label mask
  bool documents = false;  // a document mask
  std::string factor = "sigmoid";
  bool biased = false;
};

// A failure names its case.
void PrintTo(const FormCase& of, std::ostream* out) {
  *out << of.name;
}

FormCase Plain(const std::string& name) {
  FormCase plain;
  plain.name = name;
  plain.form.window = 4;
  return plain;
}

void AddForms(std::vector<FormCase>& cases) {
  const auto add = [&cases](const std::string& name) -> FormCase& {
    return cases.emplace_back(Plain(name));
  };
  add("hedgehog");
  add("exp").form.map = FeatureMapKind::kExp;
  add("exp_shifted").form.map = FeatureMapKind::kExpShifted;
  add("elu").form.map = FeatureMapKind::kElu;
  cases.back().form.two_sided = false;
  add("relu").form.map = FeatureMapKind::kRelu;
  cases.back().form.two_sided = false;
  cases.back().tied = cases.back().biased = true;
  add("one_side_biased").form.two_sided = false;
  cases.back().biased = true;
  add("elu_both_sides_biased_tied").form.map = FeatureMapKind::kElu;
  cases.back().tied = cases.back().biased = true;
  add("tied").tied = true;
  add("terraced").form.window_kind = WindowKind::kTerraced;
  cases.back().form.sinks = 2;
  add("blocks_from_the_end").form.window_kind = WindowKind::kTerraced;
  cases.back().form.align_end = true;
  add("sinks").form.sinks = 3;
  add("span_all").form.span = Span::kAll;
  add("detached_maximum").form.detach_max = true;
  add("affine").form.affine = true;
  add("exp_factor").factor = "exp";
  add("retained").form.retained = {{1}, {0, 1}};
}

void AddOptions(std::vector<FormCase>& cases) {
  const auto add = [&cases](const std::string& name) -> FormCase& {
    return cases.emplace_back(Plain(name));
  };
  add("linear_only").mode = "linear_only";
  add("window_only").mode = "window_only";
  add("retained_linear_only").mode = "linear_only";
  cases.back().form.retained = {{1}, {0, 1}};
  add("retained_window_only").mode = "window_only";
  cases.back().form.retained = {{}, {0}};
  add("dropped").drops = true;
  add("dropped_outside").drops = true;
  cases.back().dropped_span = "outside";
  add("retained_dropped").drops = true;
  cases.back().form.retained = {{1}, {}};
  add("retained_dropped_outside").drops = true;
  cases.back().form.retained = {{0}, {1}};
  cases.back().dropped_span = "outside";
  add("labelled").labelled = true;
  add("documents").documents = true;
  add("documents_dropped_labelled").documents = true;
  cases.back().drops = cases.back().labelled = true;
  add("documents_terraced").documents = true;
  cases.back().form.window_kind = WindowKind::kTerraced;
  cases.back().form.sinks = 1;
  add("distill").objective = "distill";
  add("distill_labelled").objective = "distill";
  cases.back().labelled = true;
  add("distill_documents").objective = "distill";
  cases.back().documents = true;
  add("mixture").objective = "mixture";
}

std::vector<FormCase> Cases() {
  std::vector<FormCase> cases;
  AddForms(cases);
  AddOptions(cases);
  return cases;
}

bool TrainsByTransfer(const FormCase& of) {
  return of.mode == "hybrid" && of.objective == "next_token" && !of.drops && !of.labelled;
}
bool IsEvaluatedAsTrained(const FormCase& of) {
  return of.objective == "next_token" && !of.drops && !of.labelled && !of.documents;
}
std::vector<FormCase> CasesThat(bool (*predicate)(const FormCase&)) {
  std::vector<FormCase> matching;
  for (const FormCase& of : Cases())
    if (predicate(of)) matching.push_back(of);
  return matching;
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
    options.feature_map_bias = of.biased;
    options.tie_kv_heads = of.tied;
    options.mixing_factor = of.factor;
    return options;
  }

  static FinetuneOptions TrainingOf(const FormCase& of) {
    FinetuneOptions options;
    options.attention = of.form;
    options.mode = of.mode;
    options.objective = of.objective;
    options.distill_weight = 0.3;
    options.dropped_span = of.dropped_span;
    options.train_maps = options.train_factor = true;
    return options;
  }
  // hybrid_weights has no span all.
  static std::vector<std::string> Objectives() {
    std::vector<std::string> words = {"weights", "outputs", "hybrid_outputs", "hybrid_weights"};
    if (GetParam().form.span == Span::kAll) words.pop_back();
    return words;
  }
  static StepBatch BatchOf(const FormCase& of) {
    StepBatch batch{RandomIds(3, 20, 64, 1), 0};
    if (of.labelled) batch.label_mask_BT = RandomIds(3, 20, 2, 5).to(at::kByte);
    if (of.documents) batch.document_starts = {{3, 12}, {}, {1, 15}};
    return batch;
  }

  // What has no gradient may be absent or zero.
  static void ExpectSameGradients(const GradientMap& got, const GradientMap& wanted) {
    for (const auto& [name, gradient] : wanted) {
      const bool is_zero = !gradient.defined() || gradient.abs().max().item<double>() == 0;
      if (!is_zero) {
        ASSERT_TRUE(got.contains(name)) << name;
        ExpectNear(name, got.at(name), gradient, kGradientTolerance, kSmallGradient);
      } else if (got.contains(name)) {
        EXPECT_EQ(got.at(name).abs().max().item<double>(), 0) << name;
      }
    }
  }

  std::unique_ptr<Llama> model_ = TinyModel();
  Parameters parameters_{model_->config(), OptionsOf(GetParam())};
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
  StepBatch batch_ = BatchOf(GetParam());
};

class TransferFormsTest : public FormsTest {};
class EvaluatedFormsTest : public FormsTest {};

TEST_P(FormsTest, FinetuneAgreesWithThePlainModel) {
  const FinetuneOptions options = TrainingOf(GetParam());
  const auto rule = [](int64_t sample, int64_t layer) {
    return GetParam().drops && (sample == 2 || (sample == 0 && layer == 1));
  };
  Finetune stage(*model_, parameters_, *solo_, options);
  GradientMap gradients;
  const double loss = stage.LossAndGradients(batch_, rule, gradients);
  const PlainModel plain(*model_, parameters_);
  const at::Tensor wanted = plain.Loss(options, batch_, rule);
  EXPECT_NEAR(loss, wanted.item<double>(), 1e-6 * wanted.item<double>());
  ExpectSameGradients(gradients, plain.Gradients(wanted));
  const bool maps = GetParam().mode != "window_only";
  EXPECT_EQ(gradients.contains("layers.0.feature_map_q"), maps);
  EXPECT_EQ(gradients.contains("layers.0.feature_map_k_bias"), GetParam().biased);
  EXPECT_EQ(gradients.contains("layers.0.window_factor"), GetParam().mode == "hybrid");
}

// The weighted sum of its losses, and so of their gradients.
TEST_P(TransferFormsTest, TheMixtureAgreesWithThePlainModel) {
  const PlainModel plain(*model_, parameters_);
  AttentionTransferOptions options;
  options.objective = "mixture";
  options.mixture = {.weights = 1, .outputs = 0.5, .hybrid_outputs = 2};
  options.attention = GetParam().form;
  AttentionTransfer stage(*model_, parameters_, *solo_, options);
  GradientMap gradients;
  const std::vector<double> losses = stage.LossesAndGradients(batch_, gradients);
  at::Tensor wanted = plain.TransferLoss("weights", GetParam().form, batch_);
  wanted = wanted.add(plain.TransferLoss("outputs", GetParam().form, batch_), 0.5);
  wanted = wanted.add(plain.TransferLoss("hybrid_outputs", GetParam().form, batch_), 2);
  const double mean =
      std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  EXPECT_NEAR(mean, wanted.item<double>(), 1e-5 * wanted.item<double>());
  ExpectSameGradients(gradients, plain.Gradients(wanted));
}

// Layer by layer or all in one graph: the same gradients (method.md §6.1).
TEST_P(TransferFormsTest, TransferAgreesWithThePlainModel) {
  const PlainModel plain(*model_, parameters_);
  for (const std::string& objective : Objectives()) {
    SCOPED_TRACE(objective);
    AttentionTransferOptions options;
    options.objective = objective;
    options.attention = GetParam().form;
    AttentionTransfer stage(*model_, parameters_, *solo_, options);
    GradientMap gradients;
    const std::vector<double> losses = stage.LossesAndGradients(batch_, gradients);
    const at::Tensor wanted = plain.TransferLoss(objective, GetParam().form, batch_);
    const double mean =
        std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
    EXPECT_NEAR(mean, wanted.item<double>(), 1e-5 * wanted.item<double>());
    ExpectSameGradients(gradients, plain.Gradients(wanted));
  }
}

// The loss by weights has the teacher's entropy as its floor: the last step tells what is above it.
TEST_P(TransferFormsTest, TransferTellsItsDivergenceAtTheEnd) {
  AttentionTransferOptions options;
  options.attention = GetParam().form;
  options.schedule = {1e-12, 0, 2, true};
  AttentionTransfer stage(*model_, parameters_, *solo_, options);
  EXPECT_TRUE(stage.Step(0, batch_).layer_divergences.empty());
  const std::vector<double> told = stage.Step(1, batch_).layer_divergences;
  ASSERT_EQ(told.size(), 2u);
  const double wanted = PlainModel(*model_, parameters_)
                            .TransferLoss("divergence", GetParam().form, batch_)
                            .item<double>();
  EXPECT_GT(wanted, 0.01);
  EXPECT_NEAR((told[0] + told[1]) / 2, wanted, 1e-5);
}

TEST_P(EvaluatedFormsTest, EvaluationRunsTheTrainedForm) {
  const FinetuneOptions options = TrainingOf(GetParam());
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

TEST_P(TransferFormsTest, EveryObjectiveOfTransferLearns) {
  for (const std::string& objective : Objectives()) {
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

std::string NameOf(const ::testing::TestParamInfo<FormCase>& of) {
  return of.param.name;
}
INSTANTIATE_TEST_SUITE_P(Train, FormsTest, ::testing::ValuesIn(Cases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Train, TransferFormsTest, ::testing::ValuesIn(CasesThat(TrainsByTransfer)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Train, EvaluatedFormsTest,
                         ::testing::ValuesIn(CasesThat(IsEvaluatedAsTrained)), NameOf);

}  // namespace
}  // namespace tandem::testing
