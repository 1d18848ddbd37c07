// Attend and TransferLayer: retained heads, every objective, and what is refused.
#include "worker/model/attention/form.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/logit.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include "tests/unit/attention/form_inputs.h"
#include "tests/unit/attention/refusal.h"
#include "worker/model/attention/weight_losses.h"

namespace tandem::testing {
namespace {

constexpr double kOutput = 1e-11, kGradient = 1e-9;
constexpr double kDifference = 1e-6;  // central differences in double, step 1e-5

AttentionForm SomeForm(WindowKind kind = WindowKind::kSliding,
                       FeatureMapKind map = FeatureMapKind::kHedgehog) {
  AttentionForm form;
  form.window = 16;
  form.sinks = 3;
  form.window_kind = kind;
  form.map = map;
  form.two_sided = map != FeatureMapKind::kRelu && map != FeatureMapKind::kElu;
  return form;
}

TEST(Retained, HeadsAreSoftmaxAndTheRestIsAsBefore) {
  for (const bool tied : {false, true})
    for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced})
      for (const ComponentMode mode :
           {ComponentMode::kHybrid, ComponentMode::kLinearOnly, ComponentMode::kWindowOnly}) {
        const FormInputs x(SomeForm(kind), 100, tied);
        AttentionCall call = x.call;
        call.retained = {1};
        const at::Tensor got = Attend(mode, call);
        const at::Tensor all = Attend(mode, x.call);
        const at::Tensor softmax = Attend(ComponentMode::kSoftmax, x.call);
        const at::Tensor want = at::cat({all.narrow(1, 0, 2), softmax.narrow(1, 2, 2)}, 1);
        ExpectNear("out", got, want, kOutput);
        EXPECT_TRUE(got.transpose(1, 2).is_contiguous());
        const auto a = GradientsOf(got, x.Leaves(), x.upstream);
        const auto b = GradientsOf(want, x.Leaves(), x.upstream);
        for (size_t i = 0; i < a.size(); ++i) {
          ASSERT_EQ(a[i].defined(), b[i].defined()) << kLeafNames[i];
          if (a[i].defined()) ExpectNear(kLeafNames[i], a[i], b[i], kGradient, 1e-3);
        }
      }
}

TEST(Retained, AWholeLayerReadsNoMaps) {
  const FormInputs x(SomeForm(), 100);
  AttentionCall call;
  call.q = x.call.q;
  call.k = x.call.k;
  call.v = x.call.v;
  call.retained = {0, 1};
  const at::Tensor softmax = Attend(ComponentMode::kSoftmax, x.call);
  for (const ComponentMode mode :
       {ComponentMode::kHybrid, ComponentMode::kLinearOnly, ComponentMode::kWindowOnly})
    ExpectNear("out", Attend(mode, call), softmax, kOutput);
  ExpectNear("share", AttendWithMass(call).linear_mass_BHT.add(1),
             at::ones({x.B, x.H, x.T}, at::kDouble), kOutput);
  ExpectNear("sinks", Attend(ComponentMode::kSinksOnly, call),
             SinksAttention(call.q, call.k, call.v, 8), kOutput);
}

TEST(Retained, ShareOfTheOthersIsKept) {
  FormInputs x(SomeForm(), 100);
  const at::Tensor all = AttendWithMass(x.call).linear_mass_BHT;
  x.call.retained = {0};
  const at::Tensor got = AttendWithMass(x.call).linear_mass_BHT;
  ExpectNear("share", got.narrow(1, 2, 2), all.narrow(1, 2, 2), kOutput);
  EXPECT_EQ(got.narrow(1, 0, 2).abs().max().item<double>(), 0.0);
}

// --- attention transfer ---

TransferCall TransferOf(const FormInputs& x, const std::string& factor) {
  TransferCall call;
  call.attention = x.call;
  call.theta = factor == "exp" ? x.call.gamma.detach().log() : at::logit(x.call.gamma.detach());
  call.factor = factor;
  call.teacher = CausalSoftmax(x.call.q, x.call.k, x.call.v);
  call.grad_scale = 0.5;
  return call;
}

// The loss alone, by means that share nothing with the streamed one.
double LossOf(const TransferObjective& objective, const FormInputs& x, const TransferCall& t) {
  AttentionCall a = t.attention;
  a.gamma = ActivateWindowFactor(t.theta, t.factor);
  FormInputs at_point = x;
  at_point.call = a;
  const reference::HybridInput in = at_point.ForReference();
  const reference::Sizes s = x.Sizes(x.K);
  const reference::Array lse = ToArray(t.teacher.lse_BHT);
  const auto squared = [&](const reference::Array& y) {
    return ToTensor(y, x.upstream.sizes()).sub(t.teacher.out_BHTd).square().mean().item<double>() *
           1000;
  };
  double loss = 0;
  if (objective.weights > 0) loss += objective.weights * reference::WeightsLoss(s, in, lse).loss;
  if (objective.outputs > 0) loss += objective.outputs * squared(reference::LinearOnly(s, in));
  if (objective.hybrid_outputs > 0)
    loss += objective.hybrid_outputs * squared(reference::Hybrid(s, x.Options(), in).out);
  if (objective.hybrid_weights > 0)
    loss += objective.hybrid_weights * reference::HybridWeightsLoss(s, x.Options(), in, lse);
  return loss;
}

// Gradients at a few places of every trained tensor against central differences.
void ExpectTransfer(const TransferObjective& objective, const FormInputs& x,
                    const std::string& factor, const std::string& what) {
  TransferCall call = TransferOf(x, factor);
  const TransferResult got = TransferLayer(objective, call);
  EXPECT_NEAR(got.loss, LossOf(objective, x, call), 1e-9 * std::abs(got.loss)) << what;
  EXPECT_EQ(got.d_theta.defined(), objective.TrainsFactor()) << what;
  AttentionCall& a = call.attention;
  const std::tuple<const char*, at::Tensor*, at::Tensor> trained[] = {
      {"w_q", &a.w_q, got.d_w_q},
      {"w_k", &a.w_k, got.d_w_k},
      {"b_q", &a.b_q, got.d_b_q},
      {"b_k", &a.b_k, got.d_b_k},
      {"theta", &call.theta, got.d_theta}};
  for (const auto& [name, tensor, gradient] : trained) {
    if (!gradient.defined()) continue;
    ASSERT_EQ(gradient.sizes(), tensor->sizes()) << what << " " << name;
    const double scale = std::max(1e-3, gradient.abs().max().item<double>());
    const at::Tensor kept = tensor->detach();
    for (int64_t i = 0; i < kept.numel(); i += std::max<int64_t>(1, kept.numel() / 5)) {
      const auto at_step = [&](double step) {
        *tensor = kept.clone();
        tensor->view({-1}).narrow(0, i, 1).add_(step);
        return LossOf(objective, x, call);
      };
      const double difference = 0.5 * (at_step(1e-5) - at_step(-1e-5)) / 2e-5;
      EXPECT_NEAR(gradient.flatten().select(0, i).item<double>(), difference, kDifference * scale)
          << what << " " << name << " " << i;
    }
    *tensor = kept;
  }
}

TEST(Transfer, EveryObjectiveOfEveryForm) {
  const char* const words[] = {"weights", "outputs", "hybrid_outputs", "hybrid_weights"};
  for (const char* word : words) {
    const TransferObjective objective = TransferObjectiveFromWord(word);
    for (const FeatureMapKind map :
         {FeatureMapKind::kHedgehog, FeatureMapKind::kExp, FeatureMapKind::kExpShifted,
          FeatureMapKind::kRelu, FeatureMapKind::kElu}) {
      const WindowKind kind =
          map == FeatureMapKind::kExp ? WindowKind::kTerraced : WindowKind::kSliding;
      FormInputs x(SomeForm(kind, map), 40, false, 1);
      if (map == FeatureMapKind::kRelu) {  // away from its kinks, where differences mean nothing
        x.call.b_q = x.call.b_q.detach().add(6);
        x.call.b_k = x.call.b_k.detach().add(6);
      }
      ExpectTransfer(objective, x, "sigmoid",
                     std::string(word) + " map " + std::to_string(static_cast<int>(map)));
    }
    ExpectTransfer(objective, FormInputs(SomeForm(), 40, true, 1), "exp",
                   std::string(word) + " tied, exp");
    FormInputs biased(SomeForm(), 40, false, 1);
    biased.AddBias();
    ExpectTransfer(objective, biased, "sigmoid", std::string(word) + " hedgehog with bias");
    AttentionForm one_sided = SomeForm();
    one_sided.two_sided = false;
    ExpectTransfer(objective, FormInputs(one_sided, 40, false, 1), "sigmoid",
                   std::string(word) + " hedgehog, one side");
    AttentionForm from_the_end = SomeForm(WindowKind::kTerraced);
    from_the_end.align_end = true;
    ExpectTransfer(objective, FormInputs(from_the_end, 43, false, 1), "sigmoid",
                   std::string(word) + " blocks from the end");
  }
  TransferObjective mixture;
  mixture.weights = 0.5;
  mixture.outputs = 0.25;
  mixture.hybrid_outputs = 2;
  ExpectTransfer(mixture, FormInputs(SomeForm(), 40), "sigmoid", "mixture");
}

TEST(Transfer, AffineHybrids) {
  AttentionForm form = SomeForm();
  form.affine = true;
  for (const char* word : {"hybrid_outputs", "hybrid_weights"})
    ExpectTransfer(TransferObjectiveFromWord(word), FormInputs(form, 40, false, 1), "sigmoid",
                   word);
}

// Longer than one block of rows and one piece; the fused step is the judge.
TEST(Transfer, StreamedWeightsAreTheFusedStep) {
  const FormInputs x(SomeForm(), 400, false, 4);
  const TransferCall call = TransferOf(x, "sigmoid");
  const TransferResult got = attention::GeneralWeights(call);
  const TransferResult want = TransferLayer(TransferObjectiveFromWord("weights"), call);
  EXPECT_NEAR(got.loss, want.loss, 1e-11 * want.loss);
  ExpectNear("d_w_q", got.d_w_q, want.d_w_q, kGradient);
  ExpectNear("d_w_k", got.d_w_k, want.d_w_k, kGradient);
}

TEST(Transfer, RetainedHeadsLearnNothing) {
  const FormInputs x(SomeForm(), 60);
  for (const char* word : {"weights", "outputs", "hybrid_outputs", "hybrid_weights"}) {
    const TransferObjective objective = TransferObjectiveFromWord(word);
    TransferCall call = TransferOf(x, "sigmoid");
    call.attention.retained = {0};
    const TransferResult got = TransferLayer(objective, call);
    ASSERT_EQ(got.d_w_q.sizes(), x.call.w_q.sizes());
    EXPECT_EQ(got.d_w_q.narrow(0, 0, 2).abs().max().item<double>(), 0.0) << word;
    EXPECT_EQ(got.d_w_k.narrow(0, 0, 2).abs().max().item<double>(), 0.0) << word;
    EXPECT_GT(got.d_w_q.narrow(0, 2, 2).abs().max().item<double>(), 0.0) << word;
    call.attention.retained = {0, 1};
    const TransferResult none = TransferLayer(objective, call);
    EXPECT_EQ(none.loss, 0.0);
    EXPECT_EQ(none.d_w_k.abs().max().item<double>(), 0.0);
    EXPECT_EQ(none.d_theta.defined(), objective.TrainsFactor());
  }
}

TEST(Form, RefusesWhatItDoesNotKnow) {
  FormInputs x(SomeForm(WindowKind::kTerraced), 20);
  ExpectRefusal("must be hedgehog, exp", [] { FeatureMapKindFromWord("cosine"); });
  ExpectRefusal("must be sliding or terraced", [] { WindowKindFromWord("dilated"); });
  ExpectRefusal("must be shared or mass", [] { MixingFromWord("none"); });
  ExpectRefusal("must be weights, outputs", [] { TransferObjectiveFromWord("mixture"); });
  ExpectRefusal("retained KV groups [2]; must be distinct, ascending and in [0, 2)", [&] {
    AttentionCall call = x.call;
    call.retained = {2};
    Attend(ComponentMode::kHybrid, call);
  });
  ExpectRefusal("gamma is undefined", [&] {
    AttentionCall call = x.call;
    call.gamma = at::Tensor();
    Attend(ComponentMode::kHybrid, call);
  });
  ExpectRefusal("must be one per query head, 4, or per KV head, 2", [&] {
    AttentionCall call = x.call;
    call.w_k = call.w_k.narrow(0, 0, 3);
    Attend(ComponentMode::kLinearOnly, call);
  });
  ExpectRefusal("mixing by mass knows no span all", [&] {
    AttentionCall call = x.call;
    call.form.mixing = Mixing::kMass;
    call.form.span = Span::kAll;
    Attend(ComponentMode::kHybrid, call);
  });
  ExpectRefusal("bias has shape [2, 8] beside a map of shape [4, 8, 8]; must be (Y) or (Y,f)", [&] {
    FeatureMap(x.call.form, x.call.q, x.call.w_q, x.call.w_q.select(1, 0).narrow(0, 0, 2));
  });
  ExpectRefusal("hybrid_weights needs linear.span outside, mixing.kind shared and compat none",
                [&] {
                  TransferCall transfer = TransferOf(x, "sigmoid");
                  transfer.attention.form.lolcats_defect = true;
                  TransferLayer(TransferObjectiveFromWord("hybrid_weights"), transfer);
                });
}

}  // namespace
}  // namespace tandem::testing
