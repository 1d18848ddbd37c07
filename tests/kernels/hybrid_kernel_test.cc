// Hybrid attention in all component modes: every compiled instruction set, float and double,
// against the reference.
#include <gtest/gtest.h>

#include "tests/kernels/kernel_cases.h"

namespace tandem::testing {
namespace {

using reference::HybridGradient;
using reference::HybridInput;
using reference::Options;
using reference::Sizes;

struct Case {
  Sizes sizes;
  Options options;
  double map_scale = 0.3;  // spread of the features
};

struct Example {
  HybridInput in;
  Array w_q, w_k, upstream, other_v;
};

Example MakeExample(const Case& c) {
  const Sizes& s = c.sizes;
  Random random(static_cast<unsigned>(s.tokens * 31 + c.options.window * 7 + c.options.sinks));
  const int64_t rows = s.batch * s.heads * s.tokens * s.dim;
  const int64_t keys = s.batch * s.kv_heads * s.tokens * s.dim;
  const int64_t maps = s.heads * s.dim * s.map_dim;
  Example e;
  e.in.q = random.Normal(rows, 1);
  e.in.k = random.Normal(keys, 1);
  e.in.v = random.Normal(keys, 1);
  e.w_q = random.Normal(maps, c.map_scale);
  e.w_k = random.Normal(maps, c.map_scale);
  const auto rounded = [](Array a) {
    for (double& value : a) value = static_cast<double>(static_cast<float>(value));
    return a;
  };
  e.in.phi_q = rounded(reference::FeatureMap(
      {s.batch, s.heads, s.heads, s.tokens, s.dim, s.map_dim}, e.in.q, e.w_q));
  e.in.phi_k = rounded(reference::FeatureMap(s, e.in.k, e.w_k));
  e.in.gamma = random.Normal(s.heads, 0.3);
  for (double& gamma : e.in.gamma)
    gamma = static_cast<double>(static_cast<float>(1 / (1 + std::exp(2 - gamma))));
  e.upstream = random.Normal(rows, 1);
  e.other_v = random.Normal(keys, 1);
  return e;
}

// The kernel's view of an example, with owned storage.
template <class T>
struct Call {
  Call(const Case& c, const Example& e)
      : s(c.sizes),
        q(Cast<T>(e.in.q)),
        k(Cast<T>(e.in.k)),
        v(Cast<T>(e.in.v)),
        phi_q(Cast<T>(e.in.phi_q)),
        phi_k(Cast<T>(e.in.phi_k)),
        gamma(Cast<T>(e.in.gamma)) {
    problem.sizes = SizesOf(s);
    problem.window = c.options.window;
    problem.sinks = c.options.sinks;
    problem.span_all = c.options.span_all;
    problem.detach_max = c.options.detach_max;
    problem.q = RowsIn<const T>(q.data(), s, s.heads, s.dim);
    problem.k = RowsIn<const T>(k.data(), s, s.kv_heads, s.dim);
    problem.v = RowsIn<const T>(v.data(), s, s.kv_heads, s.dim);
    problem.phi_q = RowsIn<const T>(phi_q.data(), s, s.heads, 2 * s.map_dim);
    problem.phi_k = RowsIn<const T>(phi_k.data(), s, s.heads, 2 * s.map_dim);
    problem.gamma = gamma.data();
  }

  void Forward(const AttentionKernels<T>& kernels) {
    const int64_t heads = s.batch * s.heads;
    out = Poisoned<T>(heads * s.tokens * s.dim);
    mass = Poisoned<T>(heads * s.tokens);
    const Scratch<T> scratch(kernels.hybrid_scratch(problem, false));
    const HybridOutputs<T> to{RowsIn<T>(out.data(), s, s.heads, s.dim), mass.data()};
    for (int64_t bh = 0; bh < heads; ++bh) kernels.hybrid_forward(problem, to, bh, scratch.data());
  }

  void Backward(const AttentionKernels<T>& kernels, const Array& upstream) {
    const int64_t heads = s.batch * s.heads, area = heads * s.tokens * s.dim;
    const std::vector<T> grad_out = Cast<T>(upstream);
    d_q = Poisoned<T>(area);
    d_k = Poisoned<T>(area);
    d_v = Poisoned<T>(area);
    d_phi_q = Poisoned<T>(heads * s.tokens * 2 * s.map_dim);
    d_phi_k = d_phi_q;
    d_gamma = Poisoned<T>(heads);
    HybridGradients<T> g;
    g.out = RowsIn<const T>(out.data(), s, s.heads, s.dim);
    g.grad_out = RowsIn<const T>(grad_out.data(), s, s.heads, s.dim);
    g.d_q = RowsIn<T>(d_q.data(), s, s.heads, s.dim);
    g.d_k = RowsIn<T>(d_k.data(), s, s.heads, s.dim);
    g.d_v = RowsIn<T>(d_v.data(), s, s.heads, s.dim);
    g.d_phi_q = RowsIn<T>(d_phi_q.data(), s, s.heads, 2 * s.map_dim);
    g.d_phi_k = RowsIn<T>(d_phi_k.data(), s, s.heads, 2 * s.map_dim);
    if (problem.window > 0) g.d_gamma = d_gamma.data();
    const Scratch<T> scratch(kernels.hybrid_scratch(problem, true));
    for (int64_t bh = 0; bh < heads; ++bh) kernels.hybrid_backward(problem, g, bh, scratch.data());
  }

  // (B,H,T,d) to (B,K,T,d), and (B,H) to (H).
  std::vector<T> SumGroups(const std::vector<T>& per_head) const {
    const int64_t block = s.tokens * s.dim, group = s.heads / s.kv_heads;
    std::vector<T> sum(static_cast<size_t>(s.batch * s.kv_heads * block), T{0});
    for (int64_t bh = 0; bh < s.batch * s.heads; ++bh)
      for (int64_t i = 0; i < block; ++i)
        sum[static_cast<size_t>(bh / group * block + i)] +=
            per_head[static_cast<size_t>(bh * block + i)];
    return sum;
  }
  std::vector<T> SumBatch(const std::vector<T>& partial) const {
    std::vector<T> sum(static_cast<size_t>(s.heads), T{0});
    for (size_t i = 0; i < partial.size(); ++i) sum[i % sum.size()] += partial[i];
    return sum;
  }

  const Sizes s;
  const std::vector<T> q, k, v, phi_q, phi_k, gamma;
  HybridProblem<T> problem;
  std::vector<T> out, mass, d_q, d_k, d_v, d_phi_q, d_phi_k, d_gamma;
};

// Upstream and values are of order 1, so gradients are differences of such terms, over D; gamma is
// about 0.1.
constexpr double kSmallestGradient = 0.1;

template <class T>
void CheckHybrid(const Case& c, const Example& e, const reference::HybridOutput& want,
                 const HybridGradient& want_g, const AttentionKernels<T>& kernels) {
  SCOPED_TRACE(std::string(kernels.instruction_set) + (sizeof(T) == 4 ? " float" : " double"));
  Call<T> call(c, e);
  call.Forward(kernels);
  ExpectClose("out", call.out, want.out, Tolerance<T>::kOutput);
  ExpectClose("linear_mass", call.mass, want.linear_mass, Tolerance<T>::kOutput);
  call.Backward(kernels, e.upstream);
  ExpectClose("d_q", call.d_q, want_g.d_q, Tolerance<T>::kGradient, kSmallestGradient);
  ExpectClose("d_k", call.SumGroups(call.d_k), want_g.d_k, Tolerance<T>::kGradient,
              kSmallestGradient);
  ExpectClose("d_v", call.SumGroups(call.d_v), want_g.d_v, Tolerance<T>::kGradient,
              kSmallestGradient);
  ExpectClose("d_phi_q", call.d_phi_q, want_g.d_phi_q, Tolerance<T>::kGradient, kSmallestGradient);
  ExpectClose("d_phi_k", call.d_phi_k, want_g.d_phi_k, Tolerance<T>::kGradient, kSmallestGradient);
  ExpectClose("d_gamma", call.SumBatch(call.d_gamma), want_g.d_gamma, Tolerance<T>::kGradient,
              kSmallestGradient / 0.1);
}

void CheckCase(const Case& c, bool all_sets) {
  const Sizes& s = c.sizes;
  SCOPED_TRACE("T " + std::to_string(s.tokens) + " w " + std::to_string(c.options.window) + " s " +
               std::to_string(c.options.sinks) + (c.options.span_all ? " all" : " outside") +
               (c.options.detach_max ? " detach" : "") + " d " + std::to_string(s.dim) + " f " +
               std::to_string(s.map_dim));
  const Example e = MakeExample(c);
  const reference::HybridOutput want = reference::Hybrid(s, c.options, e.in);
  const HybridGradient want_g = reference::HybridBackward(s, c.options, e.in, e.upstream);
  for (const auto* kernels : AllKernels<double>())
    if (all_sets || kernels == &Kernels<double>()) CheckHybrid(c, e, want, want_g, *kernels);
  for (const auto* kernels : AllKernels<float>())
    if (all_sets || kernels == &Kernels<float>()) CheckHybrid(c, e, want, want_g, *kernels);
}

TEST(HybridKernel, AgreesOverLengthsWindowsSinksAndSpans) {
  for (const int64_t tokens : {1, 7, 63, 64, 65, 100, 128, 200})
    for (const int64_t window :
         {int64_t{1}, int64_t{4}, int64_t{16}, int64_t{64}, int64_t{256}, tokens})
      for (const int64_t sinks : {0, 4})
        for (const bool span_all : {false, true})
          CheckCase({{1, 2, 1, tokens, 8, 8}, {window, sinks, span_all, false}}, tokens == 200);
}

TEST(HybridKernel, AgreesAtLongLength) {
  for (const int64_t window : {1, 16, 64, 256, 1024})
    CheckCase({{1, 1, 1, 1024, 16, 8}, {window, window == 16 ? 4 : 0, window == 256, false}},
              false);
}

TEST(HybridKernel, AgreesWhereWindowsEndBesideTileEdges) {
  for (const int64_t window : {2, 62, 63, 65, 66, 126, 127, 129, 130})
    for (const bool span_all : {false, true})
      CheckCase({{1, 1, 1, 300, 8, 8}, {window, 0, span_all, false}}, false);
}

TEST(HybridKernel, AgreesWithManyHeadsBatchAndOddWidths) {
  CheckCase({{2, 4, 2, 150, 64, 64}, {64, 0, false, false}}, true);
  CheckCase({{2, 4, 2, 150, 64, 64}, {64, 0, false, true}}, true);
  CheckCase({{1, 3, 1, 140, 24, 40}, {33, 5, true, false}}, true);
  CheckCase({{1, 2, 2, 140, 128, 64}, {64, 70, false, false}}, true);
  CheckCase({{1, 2, 1, 300, 72, 32}, {100, 130, false, false}}, true);
}

TEST(HybridKernel, AgreesWhereFeaturesClamp) {
  CheckCase({{1, 2, 1, 200, 64, 64}, {16, 0, false, false}, 3.0}, true);
}

template <class T>
void CheckModes(const AttentionKernels<T>& kernels) {
  SCOPED_TRACE(kernels.instruction_set);
  for (const int64_t tokens : {1, 64, 150}) {
    const Case c{{2, 4, 2, tokens, 16, 16}, {16, 0, false, false}};
    const Example e = MakeExample(c);
    Call<T> linear(c, e);
    linear.problem.window = 0;
    linear.problem.epsilon = static_cast<T>(1e-12);
    linear.problem.q = linear.problem.k = {};
    linear.Forward(kernels);
    ExpectClose("linear_only", linear.out, reference::LinearOnly(c.sizes, e.in),
                Tolerance<T>::kOutput);
    linear.Backward(kernels, e.upstream);
    const HybridGradient g = reference::LinearOnlyBackward(c.sizes, e.in, e.upstream);
    ExpectClose("d_phi_q", linear.d_phi_q, g.d_phi_q, Tolerance<T>::kGradient,
                kSmallestGradient / 0.1);
    ExpectClose("d_phi_k", linear.d_phi_k, g.d_phi_k, Tolerance<T>::kGradient,
                kSmallestGradient / 0.1);
    ExpectClose("d_v", linear.SumGroups(linear.d_v), g.d_v, Tolerance<T>::kGradient,
                kSmallestGradient / 0.1);

    Call<T> window(c, e);
    window.problem.linear = false;
    window.Forward(kernels);
    ExpectClose("window_only", window.out, reference::SoftmaxOnly(c.sizes, c.options, e.in),
                Tolerance<T>::kOutput);
    window.problem.window = 0;
    window.problem.sinks = 8;
    window.Forward(kernels);
    ExpectClose("sinks_only", window.out, reference::SoftmaxOnly(c.sizes, {0, 8}, e.in),
                Tolerance<T>::kOutput);

    Call<T> swapped(c, e);
    const std::vector<T> other = Cast<T>(e.other_v);
    swapped.problem.v_linear =
        RowsIn<const T>(other.data(), c.sizes, c.sizes.kv_heads, c.sizes.dim);
    swapped.Forward(kernels);
    HybridInput in = e.in;
    in.v_linear = e.other_v;
    ExpectClose("state_swap", swapped.out, reference::Hybrid(c.sizes, c.options, in).out,
                Tolerance<T>::kOutput);
  }
}

TEST(HybridKernel, ComponentModesAgree) {
  for (const auto* kernels : AllKernels<double>()) CheckModes(*kernels);
  for (const auto* kernels : AllKernels<float>()) CheckModes(*kernels);
}

TEST(HybridKernel, VanishingFactorWithSpanAllIsLinearOnly) {
  const Case c{{1, 2, 1, 150, 16, 16}, {16, 0, true, false}};
  Example e = MakeExample(c);
  e.in.gamma.assign(e.in.gamma.size(), 1e-30);
  Call<double> call(c, e);
  call.Forward(Kernels<double>());
  ExpectClose("out", call.out, reference::LinearOnly(c.sizes, e.in), 1e-10);
}

TEST(HybridKernel, FactorGradientIsMinusTheFeaturesGradient) {
  const Case c{{1, 1, 1, 150, 16, 16}, {16, 0, false, false}};
  const Example e = MakeExample(c);
  Call<double> call(c, e);
  call.Forward(Kernels<double>());
  call.Backward(Kernels<double>(), e.upstream);
  double sum = 0;
  for (size_t i = 0; i < call.d_phi_q.size(); ++i) sum -= call.phi_q[i] * call.d_phi_q[i];
  EXPECT_NEAR(call.d_gamma[0] * e.in.gamma[0], sum, 1e-12);
}

}  // namespace
}  // namespace tandem::testing
