// The specification itself: every gradient against central differences of its forward, and
// identities that hold for any correct implementation (method.md §5, §12).
#include <gtest/gtest.h>

#include <functional>

#include "kernels/reference/attention.h"
#include "tests/kernels/kernel_cases.h"

namespace tandem::testing {
namespace {

using reference::HybridGradient;
using reference::HybridInput;
using reference::Options;
using reference::Sizes;

constexpr double kStep = 1e-5;
// Central differences in double: step^2 from the third derivative, 1e-16 / step from rounding.
constexpr double kDifferenceTolerance = 1e-6;

double Weighted(const Array& values, const Array& weights) {
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) sum += values[i] * weights[i];
  return sum;
}

Array CentralDifferences(Array& x, const std::function<double()>& loss) {
  Array d(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i];
    x[i] = kept + kStep;
    const double above = loss();
    x[i] = kept - kStep;
    d[i] = (above - loss()) / (2 * kStep);
    x[i] = kept;
  }
  return d;
}

Array Positive(Random& random, int64_t n) {
  Array values = random.Normal(n, 1);
  for (double& value : values) value = std::abs(value) + 0.01;
  return values;
}

struct Example {
  Sizes sizes{2, 4, 2, 7, 8, 8};
  HybridInput in;
  Array upstream;
};

Example MakeExample(unsigned seed) {
  Example e;
  const Sizes& s = e.sizes;
  Random random(seed);
  const int64_t rows = s.batch * s.heads * s.tokens, keys = s.batch * s.kv_heads * s.tokens;
  e.in = {random.Normal(rows * s.dim, 1),
          random.Normal(keys * s.dim, 1),
          random.Normal(keys * s.dim, 1),
          Positive(random, rows * 2 * s.map_dim),
          Positive(random, rows * 2 * s.map_dim),
          Positive(random, s.heads),
          {}};
  e.upstream = random.Normal(rows * s.dim, 1);
  return e;
}

// Every gradient of the hybrid against central differences of a weighted sum of its outputs.
void ExpectGradients(const Options& options, Example& e) {
  const auto loss = [&] {
    return Weighted(reference::Hybrid(e.sizes, options, e.in).out, e.upstream);
  };
  const HybridGradient g = reference::HybridBackward(e.sizes, options, e.in, e.upstream);
  ExpectClose("d_q", g.d_q, CentralDifferences(e.in.q, loss), kDifferenceTolerance);
  ExpectClose("d_k", g.d_k, CentralDifferences(e.in.k, loss), kDifferenceTolerance);
  ExpectClose("d_v", g.d_v, CentralDifferences(e.in.v, loss), kDifferenceTolerance);
  ExpectClose("d_phi_q", g.d_phi_q, CentralDifferences(e.in.phi_q, loss), kDifferenceTolerance);
  ExpectClose("d_phi_k", g.d_phi_k, CentralDifferences(e.in.phi_k, loss), kDifferenceTolerance);
  // With the window off gamma cancels: its gradient is zero beside a loss of order 1.
  ExpectClose("d_gamma", g.d_gamma, CentralDifferences(e.in.gamma, loss), kDifferenceTolerance,
              options.window_off ? 1.0 : 1e-300);
}

struct HybridCase {
  int64_t window, sinks;
  bool span_all;
};

class HybridGradientTest : public ::testing::TestWithParam<HybridCase> {};

TEST_P(HybridGradientTest, AgreesWithDifferences) {
  Example e = MakeExample(11);
  const Options options{GetParam().window, GetParam().sinks, GetParam().span_all, false};
  ExpectGradients(options, e);
}

INSTANTIATE_TEST_SUITE_P(Reference, HybridGradientTest,
                         ::testing::Values(HybridCase{1, 0, false}, HybridCase{3, 0, false},
                                           HybridCase{3, 2, false}, HybridCase{3, 2, true},
                                           HybridCase{4, 0, true}));

TEST(Reference, EveryOptionAgreesWithDifferences) {
  Options terraced{3, 0}, affine{3, 2}, gain{3, 0}, off{3, 2}, all{2, 1, true};
  terraced.terraced = true;
  affine.affine = true;
  gain.gain = 3;
  off.window_off = true;
  all.terraced = all.affine = true;
  for (const Options& options : {terraced, affine, gain, off, all}) {
    Example e = MakeExample(19);
    for (double& gamma : e.in.gamma) gamma = 0.2 + gamma / 10;  // below 1, for affine
    ExpectGradients(options, e);
  }
}

TEST(Reference, TerracedWindowsHoldTheirOwnBlockAndTheOneBefore) {
  Options options{4, 1};
  options.terraced = true;
  int64_t pairs = 0;
  for (int64_t i = 0; i < 16; ++i)
    for (int64_t j = 0; j < 16; ++j) {
      const bool wanted = j <= i && (j / 4 >= i / 4 - 1 || j < 1);
      EXPECT_EQ(reference::InSoftmaxSet(options, i, j), wanted) << i << " " << j;
      pairs += reference::InSoftmaxSet(options, i, j) && reference::InLinearSet(options, i, j);
    }
  EXPECT_EQ(pairs, 0);  // nothing counts twice
}

// method.md §12.2, T = 64 and 65 beside a window of 64.
TEST(Reference, LolcatsCountsShortSequencesTwice) {
  for (const auto& [tokens, wanted] : {std::pair{int64_t{64}, 2080}, {int64_t{65}, 0}}) {
    Options options{64, 0};
    options.terraced = options.align_end = options.lolcats = true;
    options.tokens = tokens;
    int64_t both = 0;
    for (int64_t i = 0; i < tokens; ++i)
      for (int64_t j = 0; j < tokens; ++j)
        both += reference::InSoftmaxSet(options, i, j) && reference::InLinearSet(options, i, j);
    EXPECT_EQ(both, wanted) << tokens;
  }
}

// The masks of the published code, which are cut out of a whole number of blocks at its end.
TEST(Reference, BlocksFromTheEndAreThePublishedMasks) {
  const int64_t w = 4;
  for (int64_t tokens = 1; tokens <= 3 * w; ++tokens) {
    Options options{w, 0};
    options.terraced = options.align_end = true;
    options.tokens = tokens;
    const int64_t whole = (tokens + w - 1) / w * w, cut = whole - tokens;
    for (int64_t i = 0; i < tokens; ++i)
      for (int64_t j = 0; j <= i; ++j) {
        const int64_t row = i + cut, column = j + cut;
        const bool on_diagonal = column / w == row / w;           // torch.block_diag
        const bool rolled = (column + w) % whole / w == row / w;  // + torch.roll(-w, -1)
        EXPECT_EQ(reference::InSoftmaxSet(options, i, j), on_diagonal || rolled)
            << tokens << " " << i << " " << j;
      }
  }
}

TEST(Reference, MassMixingSplitsByTheMapsMass) {
  Example e = MakeExample(20);
  Options options{3, 0};
  options.mass = true;
  const reference::HybridOutput got = reference::Hybrid(e.sizes, options, e.in);
  const Array window = reference::SoftmaxOnly(e.sizes, options, e.in);
  // Row 0: the window is all there is.
  for (size_t c = 0; c < 8; ++c) EXPECT_NEAR(got.out[c], window[c], 1e-14);
  EXPECT_EQ(got.linear_mass[0], 0.0);
  // Equal features: the share of the linear branch is its share of the keys.
  e.in.phi_q.assign(e.in.phi_q.size(), 0.5);
  e.in.phi_k.assign(e.in.phi_k.size(), 0.5);
  const reference::HybridOutput even = reference::Hybrid(e.sizes, options, e.in);
  EXPECT_NEAR(even.linear_mass[6], 4.0 / 7.0, 1e-14);
}

using reference::MapKind;
constexpr MapKind kMapKinds[] = {MapKind::kHedgehog, MapKind::kExp, MapKind::kExpShifted,
                                 MapKind::kRelu, MapKind::kElu};

TEST(Reference, EveryMapAgreesWithDifferences) {
  for (const MapKind kind : kMapKinds)
    for (const int64_t features : {8, 16})
      for (const int64_t biases : {0, 1, 8}) {
        const Sizes s{1, 2, 1, 5, 8, 8, features};
        Random random(21);
        Array x = random.Normal(s.tokens * s.dim, 1),
              w = random.Normal(s.heads * s.dim * s.map_dim, 1),
              bias = random.Normal(s.heads * biases, 0.3);
        const Array upstream = random.Normal(s.heads * s.tokens * s.features, 1);
        const auto loss = [&] {
          return Weighted(reference::FeatureMap(s, kind, x, w, bias), upstream);
        };
        const reference::FeatureMapGradient g =
            reference::FeatureMapBackward(s, kind, x, w, bias, upstream);
        ExpectClose("d_x", g.d_x, CentralDifferences(x, loss), kDifferenceTolerance);
        ExpectClose("d_w", g.d_w, CentralDifferences(w, loss), kDifferenceTolerance);
        // One number per head shifts all of u, which these do not notice: 0 beside a loss of
        // order 1.
        const bool cancels =
            biases == 1 && (kind == MapKind::kHedgehog || kind == MapKind::kExpShifted);
        if (biases > 0)
          ExpectClose("d_bias", g.d_bias, CentralDifferences(bias, loss), kDifferenceTolerance,
                      cancels ? 1.0 : 1e-300);
      }
}

TEST(Reference, HedgehogIsOneFunctionHereAndInTheKernelsSpecification) {
  const Sizes s{1, 2, 1, 5, 8, 8};
  Random random(22);
  const Array x = random.Normal(s.tokens * s.dim, 1);
  const Array w = random.Normal(s.heads * s.dim * s.map_dim, 1);
  const Array one = reference::FeatureMap(s, x, w);
  const Array other = reference::FeatureMap(s, MapKind::kHedgehog, x, w, {});
  ASSERT_EQ(one.size(), other.size());
  for (size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], other[i], 1e-15);
}

TEST(Reference, DetachedMaximumChangesOnlyScores) {
  const Example e = MakeExample(12);
  const HybridGradient through =
      reference::HybridBackward(e.sizes, {3, 0, false, false}, e.in, e.upstream);
  const HybridGradient detached =
      reference::HybridBackward(e.sizes, {3, 0, false, true}, e.in, e.upstream);
  EXPECT_EQ(through.d_v, detached.d_v);
  EXPECT_EQ(through.d_phi_k, detached.d_phi_k);
  EXPECT_EQ(through.d_gamma, detached.d_gamma);
  EXPECT_NE(through.d_q, detached.d_q);
}

TEST(Reference, LinearOnlyAgreesWithDifferences) {
  Example e = MakeExample(13);
  const auto loss = [&] { return Weighted(reference::LinearOnly(e.sizes, e.in), e.upstream); };
  const HybridGradient g = reference::LinearOnlyBackward(e.sizes, e.in, e.upstream);
  ExpectClose("d_v", g.d_v, CentralDifferences(e.in.v, loss), kDifferenceTolerance);
  ExpectClose("d_phi_q", g.d_phi_q, CentralDifferences(e.in.phi_q, loss), kDifferenceTolerance);
  ExpectClose("d_phi_k", g.d_phi_k, CentralDifferences(e.in.phi_k, loss), kDifferenceTolerance);
}

TEST(Reference, WeightsLossAgreesWithDifferences) {
  Example e = MakeExample(14);
  const Array lse = reference::CausalSoftmax(e.sizes, e.in.q, e.in.k, e.in.v).lse;
  const auto loss = [&] { return reference::WeightsLoss(e.sizes, e.in, lse).loss; };
  const reference::WeightsLossResult g = reference::WeightsLoss(e.sizes, e.in, lse);
  ExpectClose("d_phi_q", g.d_phi_q, CentralDifferences(e.in.phi_q, loss), kDifferenceTolerance);
  ExpectClose("d_phi_k", g.d_phi_k, CentralDifferences(e.in.phi_k, loss), kDifferenceTolerance);
}

TEST(Reference, FeatureMapAgreesWithDifferencesAlsoWhereItClamps) {
  for (const double scale : {0.3, 6.0}) {
    const Sizes s{1, 2, 1, 5, 8, 8};
    Random random(15);
    Array x = random.Normal(s.tokens * s.dim, 1),
          w = random.Normal(s.heads * s.dim * s.map_dim, scale);
    const Array upstream = random.Normal(s.heads * s.tokens * 2 * s.map_dim, 1);
    int clamped = 0;
    for (double value : reference::FeatureMap(s, x, w)) clamped += value == 1e-12;
    EXPECT_EQ(clamped > 0, scale > 1) << "scale " << scale;
    const auto loss = [&] { return Weighted(reference::FeatureMap(s, x, w), upstream); };
    const reference::FeatureMapGradient g = reference::FeatureMapBackward(s, x, w, upstream);
    ExpectClose("d_x", g.d_x, CentralDifferences(x, loss), kDifferenceTolerance);
    ExpectClose("d_w", g.d_w, CentralDifferences(w, loss), kDifferenceTolerance);
  }
}

TEST(Reference, ConstantValuesPassThrough) {
  Example e = MakeExample(16);
  e.in.v.assign(e.in.v.size(), 1.0);
  const Array ones(e.upstream.size(), 1.0);
  ExpectClose("out", reference::Hybrid(e.sizes, {3, 2, false, false}, e.in).out, ones, 1e-14);
}

TEST(Reference, WindowOverTheWholeSequenceIsSoftmax) {
  const Example e = MakeExample(17);
  ExpectClose("out", reference::Hybrid(e.sizes, {7, 0, false, false}, e.in).out,
              reference::CausalSoftmax(e.sizes, e.in.q, e.in.k, e.in.v).out, 1e-14);
}

TEST(Reference, LossIsAboveTheTeachersEntropy) {
  const Example e = MakeExample(18);
  const Sizes& s = e.sizes;
  const Array lse = reference::CausalSoftmax(s, e.in.q, e.in.k, e.in.v).lse;
  double entropy = 0;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.tokens; ++i)
        for (int64_t j = 0; j <= i; ++j) {
          double score = 0;
          for (int64_t c = 0; c < s.dim; ++c)
            score +=
                e.in.q[static_cast<size_t>(((b * s.heads + h) * s.tokens + i) * s.dim + c)] *
                e.in.k[static_cast<size_t>(((b * s.kv_heads + h / 2) * s.tokens + j) * s.dim + c)];
          const double log_p =
              score / std::sqrt(8.0) - lse[static_cast<size_t>((b * s.heads + h) * s.tokens + i)];
          entropy -= std::exp(log_p) * log_p;
        }
  entropy /= static_cast<double>(s.batch * s.heads * s.tokens);
  EXPECT_GT(reference::WeightsLoss(s, e.in, lse).loss, entropy);
}

}  // namespace
}  // namespace tandem::testing
