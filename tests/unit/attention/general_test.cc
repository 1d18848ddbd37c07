// The general operator against the double-precision reference: every form, values and gradients.
#include "worker/model/attention/general.h"

#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include "tests/unit/attention/form_inputs.h"

namespace tandem::testing {
namespace {

using attention::GeneralAttention;
using attention::GeneralSoftmax;
using attention::GeneralWithMass;

// double throughout; gradients add up over blocks in another order, with cancellation.
constexpr double kOutput = 1e-11, kGradient = 1e-9;

AttentionForm FormOf(int64_t window, int64_t sinks, WindowKind kind = WindowKind::kSliding,
                     Span span = Span::kOutside, FeatureMapKind map = FeatureMapKind::kHedgehog) {
  AttentionForm form;
  form.window = window;
  form.sinks = sinks;
  form.window_kind = kind;
  form.span = span;
  form.map = map;
  form.two_sided = map != FeatureMapKind::kRelu && map != FeatureMapKind::kElu;
  return form;
}

std::string Describe(const AttentionForm& form, int64_t T) {
  return "T " + std::to_string(T) + " w " + std::to_string(form.window) + " sinks " +
         std::to_string(form.sinks) +
         (form.window_kind == WindowKind::kTerraced ? " terraced" : "") +
         (form.span == Span::kAll ? " all" : "") + (form.align_end ? " from the end" : "") +
         (form.lolcats_defect ? " lolcats" : "");
}

void ExpectHybrid(const FormInputs& x, const std::string& what) {
  const at::Tensor out = GeneralAttention(ComponentMode::kHybrid, x.call);
  const auto want = reference::Hybrid(x.Sizes(x.K), x.Options(), x.ForReference());
  ExpectNear(what, out, ToTensor(want.out, out.sizes()), kOutput);
}

void ExpectHybridGradients(const FormInputs& x, const std::string& what) {
  ExpectHybrid(x, what);
  const at::Tensor out = GeneralAttention(ComponentMode::kHybrid, x.call);
  const auto got = GradientsOf(out, x.Leaves(), x.upstream);
  const auto want = x.Expected(
      reference::HybridBackward(x.Sizes(x.K), x.Options(), x.ForReference(), ToArray(x.upstream)));
  for (size_t i = 0; i < got.size(); ++i)
    ExpectNear(what + " " + kLeafNames[i], got[i], want[i], kGradient, 1e-3);
}

TEST(General, HybridOfEveryWindowSpanAndLength) {
  for (const int64_t T : {1, 7, 63, 64, 65, 100, 200})
    for (const int64_t window : {1, 4, 16, 64, 256})
      for (const int64_t sinks : {0, 4})
        for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced})
          for (const Span span : {Span::kOutside, Span::kAll}) {
            const AttentionForm form = FormOf(window, sinks, kind, span);
            ExpectHybrid(FormInputs(form, T, false, 1), Describe(form, T));
          }
}

TEST(General, WindowsThatDoNotDivideTheBlocks) {
  for (const int64_t window : {3, 24, 48, 65, 96, 100})
    for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced}) {
      const AttentionForm form = FormOf(window, 2, kind);
      ExpectHybrid(FormInputs(form, 300, false, 1), Describe(form, 300));
    }
}

TEST(General, GradientsOfEveryMapTiedAndNot) {
  for (const FeatureMapKind map :
       {FeatureMapKind::kHedgehog, FeatureMapKind::kExp, FeatureMapKind::kExpShifted,
        FeatureMapKind::kRelu, FeatureMapKind::kElu})
    for (const bool tied : {false, true})
      ExpectHybridGradients(
          FormInputs(FormOf(16, 3, WindowKind::kSliding, Span::kOutside, map), 150, tied),
          "map " + std::to_string(static_cast<int>(map)) + (tied ? " tied" : ""));
}

// The other number of sides, and a bias where the kind has none by itself.
TEST(General, GradientsOfEveryMapInItsOtherForm) {
  for (const FeatureMapKind map :
       {FeatureMapKind::kHedgehog, FeatureMapKind::kExp, FeatureMapKind::kExpShifted,
        FeatureMapKind::kRelu, FeatureMapKind::kElu})
    for (const bool tied : {false, true}) {
      AttentionForm form = FormOf(16, 3, WindowKind::kSliding, Span::kOutside, map);
      form.two_sided = !form.two_sided;
      FormInputs x(form, 150, tied);
      if (map == FeatureMapKind::kRelu) {
        x.call.b_q = x.call.b_k = at::Tensor();
      } else {
        x.AddBias();
      }
      ExpectHybridGradients(
          x, "other map " + std::to_string(static_cast<int>(map)) + (tied ? " tied" : ""));
    }
}

// The fused kernels know neither one side nor a bias: Attend must not pick them.
TEST(General, AttendRunsOneSidedAndBiasedMaps) {
  for (const bool one_sided : {true, false}) {
    AttentionForm form = FormOf(16, 3);
    form.two_sided = !one_sided;
    FormInputs x(form, 100);
    if (!one_sided) x.AddBias();
    const auto want = reference::Hybrid(x.Sizes(x.K), x.Options(), x.ForReference());
    const at::Tensor got = Attend(ComponentMode::kHybrid, x.call);
    ExpectNear("hybrid", got, ToTensor(want.out, got.sizes()), kOutput);
    ExpectNear("linear_only", Attend(ComponentMode::kLinearOnly, x.call),
               ToTensor(reference::LinearOnly(x.Sizes(x.K), x.ForReference()), got.sizes()),
               kOutput);
  }
}

// method.md §3: LoLCATs' blocks from the end, and its defect in sequences no longer than the
// window.
TEST(General, FormsThatDependOnTheLength) {
  for (const int64_t T : {1, 7, 63, 64, 65, 100, 128, 200, 300})
    for (const int64_t window : {1, 4, 16, 48, 64, 65, 100})
      for (const int64_t sinks : {0, 4})
        for (const bool defect : {false, true}) {
          AttentionForm form = FormOf(window, sinks, WindowKind::kTerraced);
          form.align_end = true;
          form.lolcats_defect = defect;
          ExpectHybrid(FormInputs(form, T, false, 1), Describe(form, T));
        }
  for (const int64_t T : {12, 60}) {
    AttentionForm form = FormOf(16, 3, WindowKind::kTerraced);
    form.align_end = form.lolcats_defect = true;
    ExpectHybridGradients(FormInputs(form, T), Describe(form, T));
  }
}

TEST(General, GradientsOfEveryWindowAndOption) {
  for (const int64_t T : {7, 65, 200})
    for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced})
      for (const Span span : {Span::kOutside, Span::kAll}) {
        const AttentionForm form = FormOf(16, 3, kind, span);
        ExpectHybridGradients(FormInputs(form, T), Describe(form, T));
      }
  AttentionForm form = FormOf(16, 3);
  form.detach_max = true;
  ExpectHybridGradients(FormInputs(form, 150), "detach");
  form = FormOf(16, 3);
  form.affine = true;
  ExpectHybridGradients(FormInputs(form, 150), "affine");
  form.affine = false;
  form.window_gain = 3;
  ExpectHybridGradients(FormInputs(form, 150), "gain");
  for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced}) {
    FormInputs off(FormOf(16, 3, kind), 150);
    off.call.window_off = true;
    ExpectHybridGradients(off, "window off");
  }
}

TEST(General, MassMixingAndOtherStateAndLinearShare) {
  for (const WindowKind kind : {WindowKind::kSliding, WindowKind::kTerraced})
    for (const Mixing mixing : {Mixing::kShared, Mixing::kMass}) {
      AttentionForm form = FormOf(16, 3, kind);
      form.mixing = mixing;
      FormInputs x(form, 150);
      for (const bool swap : {false, true}) {
        if (swap) {
          x.call.k_linear = at::randn(x.call.k.sizes(), at::kDouble);
          x.call.v_linear = at::randn(x.call.v.sizes(), at::kDouble);
        }
        const auto want = reference::Hybrid(x.Sizes(x.K), x.Options(), x.ForReference());
        const HybridDiagnostics got = GeneralWithMass(x.call);
        ExpectNear("out", got.out_BHTd, ToTensor(want.out, got.out_BHTd.sizes()), kOutput);
        ExpectNear("share", got.linear_mass_BHT, ToTensor(want.linear_mass, {x.B, x.H, x.T}),
                   kOutput);
      }
    }
}

TEST(General, TheOtherModesAreTheFusedOnes) {
  for (const int64_t T : {1, 64, 65, 200}) {
    const FormInputs x(FormOf(16, 3), T);
    const AttentionCall& c = x.call;
    const std::pair<at::Tensor, at::Tensor> pairs[] = {
        {GeneralAttention(ComponentMode::kLinearOnly, c),
         LinearAttentionWithMaps(c.q, c.k, c.v, c.w_q, c.w_k)},
        {GeneralAttention(ComponentMode::kWindowOnly, c), WindowAttention(c.q, c.k, c.v, 16, 3)},
        {GeneralSoftmax(c.q, c.k, c.v), WindowAttention(c.q, c.k, c.v, T, 0)}};
    for (const auto& [got, want] : pairs) {
      ExpectNear("out", got, want, kOutput);
      const auto a = GradientsOf(got, x.Leaves(), x.upstream);
      const auto b = GradientsOf(want, x.Leaves(), x.upstream);
      for (size_t i = 0; i < a.size(); ++i) {
        ASSERT_EQ(a[i].defined(), b[i].defined()) << kLeafNames[i];
        if (a[i].defined()) ExpectNear(kLeafNames[i], a[i], b[i], kGradient, 1e-3);
      }
    }
    ExpectNear("sinks", GeneralAttention(ComponentMode::kSinksOnly, c),
               SinksAttention(c.q, c.k, c.v, 8), kOutput);
    const SoftmaxResult teacher = attention::GeneralTeacher(c.q, c.k, c.v);
    ExpectNear("teacher", teacher.out_BHTd, CausalSoftmax(c.q, c.k, c.v).out_BHTd, kOutput);
    ExpectNear("lse", teacher.lse_BHT, CausalSoftmax(c.q, c.k, c.v).lse_BHT, kOutput);
  }
}

TEST(General, WindowOnlyOfTerracedWindows) {
  const FormInputs x(FormOf(16, 3, WindowKind::kTerraced), 150);
  const at::Tensor out = GeneralAttention(ComponentMode::kWindowOnly, x.call);
  ExpectNear(
      "out", out,
      ToTensor(reference::SoftmaxOnly(x.Sizes(x.K), x.Options(), x.ForReference()), out.sizes()),
      kOutput);
}

// More than the budget of temporaries: several sequences, then single groups at a time.
TEST(General, PiecesGiveWhatTheWholeGives) {
  for (const auto& [T, window, batch] : {std::tuple{520, 260, 1}, std::tuple{150, 150, 12}}) {
    const FormInputs x(FormOf(window, 3), T, false, batch);
    const AttentionCall& c = x.call;
    const at::Tensor got = GeneralAttention(ComponentMode::kHybrid, c);
    const at::Tensor want =
        HybridAttentionWithMaps(c.q, c.k, c.v, c.w_q, c.w_k, c.gamma, {window, 3});
    ExpectNear("out", got, want, kOutput);
    const auto a = GradientsOf(got, x.Leaves(), x.upstream);
    const auto b = GradientsOf(want, x.Leaves(), x.upstream);
    for (size_t i = 0; i < a.size(); ++i) ExpectNear(kLeafNames[i], a[i], b[i], kGradient, 1e-3);
  }
}

TEST(General, FloatKeepsItsPrecision) {
  const FormInputs x(FormOf(16, 3, WindowKind::kTerraced), 200);
  AttentionCall single = x.call;
  for (at::Tensor* t : {&single.q, &single.k, &single.v, &single.w_q, &single.w_k, &single.gamma})
    *t = t->detach().to(at::kFloat);
  // 1e-5: sums of 200 terms at 6e-8, and exp.
  ExpectNear("out", GeneralAttention(ComponentMode::kHybrid, single),
             GeneralAttention(ComponentMode::kHybrid, x.call), 1e-5);
}

}  // namespace
}  // namespace tandem::testing
