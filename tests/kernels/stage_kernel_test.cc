// The kernels around the hybrid: feature map, teacher, weights loss and the fused transfer step,
// against the reference.
#include <gtest/gtest.h>

#include "tests/kernels/kernel_cases.h"

namespace tandem::testing {
namespace {

using reference::HybridInput;
using reference::Sizes;

struct Example {
  Array q, k, v, w_q, w_k;
};

Example MakeExample(const Sizes& s, double map_scale) {
  Random random(static_cast<unsigned>(s.tokens));
  const int64_t keys = s.batch * s.kv_heads * s.tokens * s.dim;
  const int64_t maps = s.heads * s.dim * s.map_dim;
  return {random.Normal(s.batch * s.heads * s.tokens * s.dim, 1.5), random.Normal(keys, 1.5),
          random.Normal(keys, 1), random.Normal(maps, map_scale), random.Normal(maps, map_scale)};
}

// q's own heads: the map of q reads head h.
Sizes QuerySizes(const Sizes& s) {
  return {s.batch, s.heads, s.heads, s.tokens, s.dim, s.map_dim};
}

// (B,H,n) partial sums over the batch.
template <class T>
std::vector<T> SumBatch(const std::vector<T>& partial, size_t n) {
  std::vector<T> sum(n, T{0});
  for (size_t i = 0; i < partial.size(); ++i) sum[i % n] += partial[i];
  return sum;
}

// Upstream gradients are of order 1; below a tenth of it a gradient is a difference of larger terms
// (T = 1).
constexpr double kSmallestGradient = 0.1;

const Sizes kSizes[] = {{1, 1, 1, 1, 8, 8},    {1, 2, 1, 63, 8, 16},   {2, 4, 2, 64, 64, 64},
                        {1, 2, 1, 65, 16, 8},  {2, 2, 1, 200, 24, 40}, {1, 2, 2, 128, 128, 64},
                        {1, 2, 1, 300, 64, 64}};

template <class T>
void CheckMap(const AttentionKernels<T>& kernels, const Sizes& s, double scale) {
  const Example e = MakeExample(s, scale);
  const int64_t heads = s.batch * s.heads, features = 2 * s.map_dim;
  const std::vector<T> x = Cast<T>(e.k), w = Cast<T>(e.w_k);
  Random random(5);
  const Array upstream = random.Normal(heads * s.tokens * features, 1);
  const std::vector<T> d_phi = Cast<T>(upstream);
  std::vector<T> phi = Poisoned<T>(heads * s.tokens * features);
  std::vector<T> d_x = Poisoned<T>(heads * s.tokens * s.dim);
  std::vector<T> d_w = Poisoned<T>(heads * s.dim * s.map_dim);
  MapProblem<T> p;
  p.sizes = SizesOf(s);
  p.x = RowsIn<const T>(x.data(), s, s.kv_heads, s.dim);
  p.w = w.data();
  p.phi = RowsIn<T>(phi.data(), s, s.heads, features);
  p.d_phi = RowsIn<const T>(d_phi.data(), s, s.heads, features);
  p.d_x = RowsIn<T>(d_x.data(), s, s.heads, s.dim);
  p.d_w = d_w.data();
  const Scratch<T> scratch(kernels.map_scratch(p.sizes));
  for (int64_t bh = 0; bh < heads; ++bh) {
    kernels.map_forward(p, bh, scratch.data());
    kernels.map_backward(p, bh, scratch.data());
  }
  const bool steep = scale > 1;
  ExpectClose("phi", phi, reference::FeatureMap(s, e.k, e.w_k),
              steep ? Tolerance<T>::kSteepMap : Tolerance<T>::kOutput);
  const reference::FeatureMapGradient g = reference::FeatureMapBackward(s, e.k, e.w_k, upstream);
  ExpectClose("d_w", SumBatch(d_w, e.w_k.size()), g.d_w, Tolerance<T>::kGradient,
              kSmallestGradient);
  std::vector<T> d_k(e.k.size(), T{0});
  const int64_t block = s.tokens * s.dim, group = s.heads / s.kv_heads;
  for (int64_t i = 0; i < heads * block; ++i)
    d_k[static_cast<size_t>(i / block / group * block + i % block)] += d_x[static_cast<size_t>(i)];
  ExpectClose("d_x", d_k, g.d_x, Tolerance<T>::kGradient, kSmallestGradient);
}

template <class T>
void CheckTeacher(const AttentionKernels<T>& kernels, const Sizes& s) {
  const Example e = MakeExample(s, 0.3);
  const std::vector<T> q = Cast<T>(e.q), k = Cast<T>(e.k), v = Cast<T>(e.v);
  std::vector<T> out = Poisoned<T>(static_cast<int64_t>(q.size()));
  std::vector<T> lse = Poisoned<T>(s.batch * s.heads * s.tokens);
  SoftmaxProblem<T> p;
  p.sizes = SizesOf(s);
  p.q = RowsIn<const T>(q.data(), s, s.heads, s.dim);
  p.k = RowsIn<const T>(k.data(), s, s.kv_heads, s.dim);
  p.v = RowsIn<const T>(v.data(), s, s.kv_heads, s.dim);
  p.out = RowsIn<T>(out.data(), s, s.heads, s.dim);
  p.lse = lse.data();
  const Scratch<T> scratch(kernels.softmax_scratch(p.sizes));
  for (int64_t bh = 0; bh < s.batch * s.heads; ++bh) kernels.softmax(p, bh, scratch.data());
  const reference::Teacher want = reference::CausalSoftmax(s, e.q, e.k, e.v);
  ExpectClose("out", out, want.out, Tolerance<T>::kOutput);
  ExpectClose("lse", lse, want.lse, Tolerance<T>::kOutput);
}

template <class T>
void CheckWeights(const AttentionKernels<T>& kernels, const Sizes& s) {
  const Example e = MakeExample(s, 0.3);
  const int64_t heads = s.batch * s.heads, rows = heads * s.tokens;
  HybridInput in{e.q,
                 e.k,
                 e.v,
                 reference::FeatureMap(QuerySizes(s), e.q, e.w_q),
                 reference::FeatureMap(s, e.k, e.w_k),
                 {},
                 {}};
  const Array lse = reference::CausalSoftmax(s, e.q, e.k, e.v).lse;
  const reference::WeightsLossResult want = reference::WeightsLoss(s, in, lse);
  const std::vector<T> q = Cast<T>(e.q), k = Cast<T>(e.k), w_q = Cast<T>(e.w_q),
                       w_k = Cast<T>(e.w_k), normaliser = Cast<T>(lse);
  std::vector<T> d_w_q = Poisoned<T>(heads * s.dim * s.map_dim), d_w_k = d_w_q;
  std::vector<double> loss(static_cast<size_t>(heads));
  WeightsProblem<T> p;
  p.sizes = SizesOf(s);
  p.q = RowsIn<const T>(q.data(), s, s.heads, s.dim);
  p.k = RowsIn<const T>(k.data(), s, s.kv_heads, s.dim);
  p.w_q = w_q.data();
  p.w_k = w_k.data();
  p.lse = normaliser.data();
  p.grad_factor = static_cast<T>(1 / static_cast<double>(rows));
  p.loss = loss.data();
  p.d_w_q = d_w_q.data();
  p.d_w_k = d_w_k.data();
  const Scratch<T> scratch(kernels.weights_scratch(p.sizes));
  double sum = 0;
  for (int64_t bh = 0; bh < heads; ++bh) {
    kernels.weights(p, bh, scratch.data());
    sum += loss[static_cast<size_t>(bh)] / static_cast<double>(rows);
  }
  EXPECT_NEAR(sum, want.loss, Tolerance<T>::kOutput * std::max(1.0, std::abs(want.loss)));
  ExpectClose("d_w_q", SumBatch(d_w_q, e.w_q.size()),
              reference::FeatureMapBackward(QuerySizes(s), e.q, e.w_q, want.d_phi_q).d_w,
              Tolerance<T>::kGradient, kSmallestGradient / static_cast<double>(rows));
  ExpectClose("d_w_k", SumBatch(d_w_k, e.w_k.size()),
              reference::FeatureMapBackward(s, e.k, e.w_k, want.d_phi_k).d_w,
              Tolerance<T>::kGradient, kSmallestGradient / static_cast<double>(rows));
}

template <class T>
void CheckTransfer(const AttentionKernels<T>& kernels, const Sizes& s,
                   const reference::Options& options) {
  const Example e = MakeExample(s, 0.3);
  const int64_t heads = s.batch * s.heads;
  Array gamma(static_cast<size_t>(s.heads), static_cast<double>(0.1f));
  const HybridInput in{e.q,
                       e.k,
                       e.v,
                       reference::FeatureMap(QuerySizes(s), e.q, e.w_q),
                       reference::FeatureMap(s, e.k, e.w_k),
                       gamma,
                       {}};
  const Array teacher = reference::CausalSoftmax(s, e.q, e.k, e.v).out;
  Array d_out = reference::Hybrid(s, options, in).out;
  double want_error = 0;
  for (size_t i = 0; i < d_out.size(); ++i) {
    d_out[i] -= teacher[i];
    want_error += d_out[i] * d_out[i];
  }
  const reference::HybridGradient g = reference::HybridBackward(s, options, in, d_out);
  const std::vector<T> q = Cast<T>(e.q), k = Cast<T>(e.k), v = Cast<T>(e.v), w_q = Cast<T>(e.w_q),
                       w_k = Cast<T>(e.w_k), factor = Cast<T>(gamma), target = Cast<T>(teacher);
  std::vector<T> d_w_q = Poisoned<T>(heads * s.dim * s.map_dim), d_w_k = d_w_q;
  std::vector<T> d_gamma = Poisoned<T>(heads);
  std::vector<double> error(static_cast<size_t>(heads));
  HybridProblem<T> p;
  p.sizes = SizesOf(s);
  p.window = options.window;
  p.sinks = options.sinks;
  p.span_all = options.span_all;
  p.q = RowsIn<const T>(q.data(), s, s.heads, s.dim);
  p.k = RowsIn<const T>(k.data(), s, s.kv_heads, s.dim);
  p.v = RowsIn<const T>(v.data(), s, s.kv_heads, s.dim);
  p.w_q = w_q.data();
  p.w_k = w_k.data();
  p.gamma = factor.data();
  TransferOutputs<T> to;
  to.teacher = RowsIn<const T>(target.data(), s, s.heads, s.dim);
  to.grad_factor = 1;
  to.squared_error = error.data();
  to.d_w_q = d_w_q.data();
  to.d_w_k = d_w_k.data();
  to.d_gamma = d_gamma.data();
  const Scratch<T> scratch(kernels.hybrid_scratch(p, true));
  double sum = 0;
  for (int64_t bh = 0; bh < heads; ++bh) {
    kernels.hybrid_transfer(p, to, bh, scratch.data());
    sum += error[static_cast<size_t>(bh)];
  }
  // Where nothing is linear (T <= w), or nothing to choose (T = 1), the hybrid is the teacher:
  // error and gradients vanish in exact arithmetic.
  if ((s.tokens <= options.window && !options.span_all) || s.tokens == 1) {
    EXPECT_LE(sum,
              100 * Tolerance<T>::kOutput * Tolerance<T>::kOutput * static_cast<double>(q.size()));
    return;
  }
  EXPECT_NEAR(sum, want_error, Tolerance<T>::kGradient * want_error);
  ExpectClose("d_w_q", SumBatch(d_w_q, e.w_q.size()),
              reference::FeatureMapBackward(QuerySizes(s), e.q, e.w_q, g.d_phi_q).d_w,
              Tolerance<T>::kGradient, kSmallestGradient);
  ExpectClose("d_w_k", SumBatch(d_w_k, e.w_k.size()),
              reference::FeatureMapBackward(s, e.k, e.w_k, g.d_phi_k).d_w, Tolerance<T>::kGradient,
              kSmallestGradient);
  ExpectClose("d_gamma", SumBatch(d_gamma, static_cast<size_t>(s.heads)), g.d_gamma,
              Tolerance<T>::kGradient, kSmallestGradient);
}

template <class T>
void CheckAll() {
  for (const auto* kernels : AllKernels<T>())
    for (const Sizes& s : kSizes) {
      SCOPED_TRACE(std::string(kernels->instruction_set) + (sizeof(T) == 4 ? " float" : " double") +
                   " T " + std::to_string(s.tokens));
      CheckMap(*kernels, s, 0.3);
      CheckMap(*kernels, s, 3.0);  // clamps
      CheckTeacher(*kernels, s);
      CheckWeights(*kernels, s);
      CheckTransfer(*kernels, s, {16, 0, false, false});
      CheckTransfer(*kernels, s, {64, 4, true, false});
      CheckTransfer(*kernels, s, {64, 0, false, false});
    }
}

template <class T>
bool AllNan(const std::vector<T>& values, size_t begin, size_t count) {
  for (size_t i = begin; i < begin + count; ++i) {
    if (!std::isnan(values[i])) return false;
  }
  return true;
}

// One NaN in x of one token: that token's features are all NaN, the others' are none.
template <class T>
void CheckNanOfOneToken(const AttentionKernels<T>& kernels) {
  const Sizes s{1, 1, 1, 70, 16, 8};
  const Example e = MakeExample(s, 0.3);
  std::vector<T> x = Cast<T>(e.k), w = Cast<T>(e.w_k), phi = Poisoned<T>(70 * 16);
  x[66 * 16 + 3] = std::numeric_limits<T>::quiet_NaN();
  MapProblem<T> p;
  p.sizes = SizesOf(s);
  p.x = RowsIn<const T>(x.data(), s, 1, s.dim);
  p.w = w.data();
  p.phi = RowsIn<T>(phi.data(), s, 1, 16);
  const Scratch<T> scratch(kernels.map_scratch(p.sizes));
  kernels.map_forward(p, 0, scratch.data());
  for (size_t t = 0; t < 70; ++t) {
    if (t == 66) {
      EXPECT_TRUE(AllNan(phi, t * 16, 16));
    } else {
      for (size_t c = 0; c < 16; ++c) EXPECT_TRUE(std::isfinite(phi[t * 16 + c])) << t;
    }
  }
}

// One NaN in a map's weights: the loss and the gradients of both transfer losses are NaN, which
// ends the job.
template <class T>
void CheckNanOfAMap(const AttentionKernels<T>& kernels) {
  const Sizes s{1, 1, 1, 100, 16, 8};
  const Example e = MakeExample(s, 0.3);
  const std::vector<T> q = Cast<T>(e.q), k = Cast<T>(e.k), v = Cast<T>(e.v), w_k = Cast<T>(e.w_k);
  std::vector<T> w_q = Cast<T>(e.w_q);
  w_q[5] = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> lse = Cast<T>(reference::CausalSoftmax(s, e.q, e.k, e.v).lse);
  std::vector<T> d_w_q(w_q.size()), d_w_k(w_q.size()), d_gamma(1), gamma(1, T(0.1));
  double loss = 0;
  WeightsProblem<T> p;
  p.sizes = SizesOf(s);
  p.q = RowsIn<const T>(q.data(), s, 1, s.dim);
  p.k = RowsIn<const T>(k.data(), s, 1, s.dim);
  p.w_q = w_q.data();
  p.w_k = w_k.data();
  p.lse = lse.data();
  p.grad_factor = 1;
  p.loss = &loss;
  p.d_w_q = d_w_q.data();
  p.d_w_k = d_w_k.data();
  const Scratch<T> scratch(kernels.weights_scratch(p.sizes));
  kernels.weights(p, 0, scratch.data());
  EXPECT_TRUE(std::isnan(loss)) << loss;
  EXPECT_TRUE(AllNan(d_w_q, 0, d_w_q.size()));
  EXPECT_TRUE(AllNan(d_w_k, 0, d_w_k.size()));

  HybridProblem<T> hybrid;
  hybrid.sizes = p.sizes;
  hybrid.window = 16;
  hybrid.q = p.q;
  hybrid.k = p.k;
  hybrid.v = RowsIn<const T>(v.data(), s, 1, s.dim);
  hybrid.w_q = w_q.data();
  hybrid.w_k = w_k.data();
  hybrid.gamma = gamma.data();
  TransferOutputs<T> to;
  to.teacher = hybrid.v;
  to.grad_factor = 1;
  to.squared_error = &loss;
  to.d_w_q = d_w_q.data();
  to.d_w_k = d_w_k.data();
  to.d_gamma = d_gamma.data();
  const Scratch<T> hybrid_scratch(kernels.hybrid_scratch(hybrid, true));
  loss = 0;
  kernels.hybrid_transfer(hybrid, to, 0, hybrid_scratch.data());
  EXPECT_TRUE(std::isnan(loss)) << loss;
  EXPECT_TRUE(AllNan(d_w_q, 0, d_w_q.size()));
  EXPECT_TRUE(AllNan(d_w_k, 0, d_w_k.size()));
  EXPECT_TRUE(std::isnan(d_gamma[0]));
}

template <class T>
void CheckNan() {
  for (const auto* kernels : AllKernels<T>()) {
    SCOPED_TRACE(std::string(kernels->instruction_set) + (sizeof(T) == 4 ? " float" : " double"));
    CheckNanOfOneToken(*kernels);
    CheckNanOfAMap(*kernels);
  }
}

TEST(StageKernels, NanOfAFeatureMapIsNotSwallowed) {
  CheckNan<float>();
  CheckNan<double>();
}

TEST(StageKernels, AgreeInDouble) {
  CheckAll<double>();
}
TEST(StageKernels, AgreeInFloat) {
  CheckAll<float>();
}

}  // namespace
}  // namespace tandem::testing
