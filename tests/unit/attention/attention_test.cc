// The tensor side of attention: autograd, strides, groups, threads and refusals. The arithmetic
// itself is tested in tests/kernels; here the same reference shows that tensors reach the kernels
// and come back as they should.
#include "worker/model/attention/attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sigmoid.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "kernels/reference/attention.h"
#include "tests/unit/attention/refusal.h"
#include "tests/unit/attention/tensor_compare.h"

namespace tandem::testing {
namespace {

using reference::Array;
using reference::Sizes;

constexpr int64_t kB = 2, kH = 4, kK = 2, kT = 100, kD = 16, kF = 24;
const Sizes kSizes{kB, kH, kK, kT, kD, kF};
// double throughout: the kernels' own tolerances (tests/kernels/kernel_cases.h).
constexpr double kOutput = 1e-12, kGradient = 1e-11;

Array ToArray(const at::Tensor& x) {
  const at::Tensor c = x.detach().contiguous();
  const double* data = c.const_data_ptr<double>();
  return Array(data, data + c.numel());
}

at::Tensor ToTensor(Array& values, at::IntArrayRef shape) {
  return at::from_blob(values.data(), shape, at::kDouble).clone();
}

at::Tensor Leaf(at::Tensor x) {
  return x.detach().requires_grad_(true);
}

// q, k, v as views of one projection (B,T,(H+2K)d), maps and factors as leaves.
struct Inputs {
  Inputs() {
    projection = Leaf(at::randn({kB, kT, (kH + 2 * kK) * kD}, at::kDouble));
    const auto view = [&](int64_t first, int64_t heads) {
      return projection.narrow(2, first * kD, heads * kD).unflatten(2, {heads, kD}).transpose(1, 2);
    };
    q = view(0, kH);
    k = view(kH, kK);
    v = view(kH + kK, kK);
    w_q = Leaf(at::randn({kH, kD, kF}, at::kDouble).mul(0.3));
    w_k = Leaf(at::randn({kH, kD, kF}, at::kDouble).mul(0.3));
    theta = Leaf(at::randn({kH}, at::kDouble).mul(0.3).sub(2.0));
    upstream = at::randn({kB, kH, kT, kD}, at::kDouble);
  }

  reference::HybridInput ForReference() const {
    reference::HybridInput in;
    in.q = ToArray(q);
    in.k = ToArray(k);
    in.v = ToArray(v);
    in.phi_q = reference::FeatureMap({kB, kH, kH, kT, kD, kF}, in.q, ToArray(w_q));
    in.phi_k = reference::FeatureMap(kSizes, in.k, ToArray(w_k));
    in.gamma = ToArray(at::sigmoid(theta));
    return in;
  }

  at::Tensor projection, q, k, v, w_q, w_k, theta, upstream;
};

std::vector<at::Tensor> Gradients(const at::Tensor& out, const std::vector<at::Tensor>& inputs,
                                  const at::Tensor& upstream) {
  return torch::autograd::grad({out}, inputs, {upstream}, /*retain_graph=*/true);
}

HybridOptions SomeOptions() {
  return {16, 3, Span::kOutside, false};
}
const reference::Options kSomeOptions{16, 3, false, false};

// The reference's gradients of q, k, v, maps and gamma.
std::vector<at::Tensor> ReferenceGradients(const Inputs& x, const reference::HybridGradient& g) {
  const reference::HybridInput in = x.ForReference();
  reference::FeatureMapGradient map_q =
      reference::FeatureMapBackward({kB, kH, kH, kT, kD, kF}, in.q, ToArray(x.w_q), g.d_phi_q);
  reference::FeatureMapGradient map_k =
      reference::FeatureMapBackward(kSizes, in.k, ToArray(x.w_k), g.d_phi_k);
  Array d_q = g.d_q, d_k = g.d_k, d_v = g.d_v, d_gamma = g.d_gamma;
  for (size_t i = 0; i < d_q.size(); ++i) d_q[i] += map_q.d_x[i];
  for (size_t i = 0; i < d_k.size(); ++i) d_k[i] += map_k.d_x[i];
  return {ToTensor(d_q, {kB, kH, kT, kD}),   ToTensor(d_k, {kB, kK, kT, kD}),
          ToTensor(d_v, {kB, kK, kT, kD}),   ToTensor(map_q.d_w, {kH, kD, kF}),
          ToTensor(map_k.d_w, {kH, kD, kF}), ToTensor(d_gamma, {kH})};
}

const char* const kNames[] = {"d_q", "d_k", "d_v", "d_w_q", "d_w_k", "d_gamma"};

TEST(HybridAttention, WithMapsGivesTheReferencesGradients) {
  const Inputs x;
  const at::Tensor gamma = at::sigmoid(x.theta);
  const at::Tensor out = HybridAttentionWithMaps(x.q, x.k, x.v, x.w_q, x.w_k, gamma, SomeOptions());
  const reference::HybridInput in = x.ForReference();
  Array want = reference::Hybrid(kSizes, kSomeOptions, in).out;
  ExpectNear("out", out, ToTensor(want, out.sizes()), kOutput);
  const auto got = Gradients(out, {x.q, x.k, x.v, x.w_q, x.w_k, gamma}, x.upstream);
  const auto expected = ReferenceGradients(
      x, reference::HybridBackward(kSizes, kSomeOptions, in, ToArray(x.upstream)));
  for (size_t i = 0; i < got.size(); ++i) ExpectNear(kNames[i], got[i], expected[i], kGradient);
}

TEST(HybridAttention, MapsInsideAndOutsideAreTheSame) {
  const Inputs x;
  const std::vector<at::Tensor> leaves = {x.projection, x.w_q, x.w_k, x.theta};
  const at::Tensor inside =
      HybridAttentionWithMaps(x.q, x.k, x.v, x.w_q, x.w_k, at::sigmoid(x.theta), SomeOptions());
  const at::Tensor outside =
      HybridAttention(x.q, x.k, x.v, HedgehogFeatureMap(x.q, x.w_q), HedgehogFeatureMap(x.k, x.w_k),
                      at::sigmoid(x.theta), SomeOptions());
  ExpectNear("out", outside, inside, kOutput);
  const auto a = Gradients(inside, leaves, x.upstream), b = Gradients(outside, leaves, x.upstream);
  for (size_t i = 0; i < a.size(); ++i)
    ExpectNear("leaf " + std::to_string(i), b[i], a[i], kGradient);
}

TEST(HybridAttention, GivesOnlyTheGradientsAskedFor) {
  const Inputs x;
  const at::Tensor v = Leaf(x.v);
  const at::Tensor out =
      HybridAttentionWithMaps(x.q.detach(), x.k.detach(), v, x.w_q.detach(), x.w_k.detach(),
                              at::sigmoid(x.theta).detach(), SomeOptions());
  const at::Tensor all =
      HybridAttentionWithMaps(x.q, x.k, v, x.w_q, x.w_k, at::sigmoid(x.theta), SomeOptions());
  ExpectNear("d_v", Gradients(out, {v}, x.upstream)[0], Gradients(all, {v}, x.upstream)[0], 0);
  const at::NoGradGuard guard;
  EXPECT_FALSE(
      HybridAttentionWithMaps(x.q, x.k, v, x.w_q, x.w_k, at::sigmoid(x.theta), SomeOptions())
          .requires_grad());
}

TEST(HybridAttention, TheMaximumsGradientCanBeDetached) {
  const Inputs x;
  HybridOptions options = SomeOptions();
  options.detach_max = true;
  const at::Tensor gamma = at::sigmoid(x.theta);
  const at::Tensor out = HybridAttentionWithMaps(x.q, x.k, x.v, x.w_q, x.w_k, gamma, options);
  const auto got = Gradients(out, {x.q, x.k, x.v, x.w_q, x.w_k, gamma}, x.upstream);
  reference::Options detached = kSomeOptions;
  detached.detach_max = true;
  const auto expected = ReferenceGradients(
      x, reference::HybridBackward(kSizes, detached, x.ForReference(), ToArray(x.upstream)));
  for (size_t i = 0; i < got.size(); ++i) ExpectNear(kNames[i], got[i], expected[i], kGradient);
}

TEST(LinearAttention, GivesTheReferencesGradients) {
  const Inputs x;
  const reference::HybridInput in = x.ForReference();
  const at::Tensor out = LinearAttentionWithMaps(x.q, x.k, x.v, x.w_q, x.w_k);
  Array want = reference::LinearOnly(kSizes, in);
  ExpectNear("out", out, ToTensor(want, out.sizes()), kOutput);
  const auto got = Gradients(out, {x.q, x.k, x.v, x.w_q, x.w_k}, x.upstream);
  const auto expected =
      ReferenceGradients(x, reference::LinearOnlyBackward(kSizes, in, ToArray(x.upstream)));
  for (size_t i = 0; i < got.size(); ++i) ExpectNear(kNames[i], got[i], expected[i], kGradient);

  const at::Tensor composed =
      LinearAttention(HedgehogFeatureMap(x.q, x.w_q), HedgehogFeatureMap(x.k, x.w_k), x.v);
  ExpectNear("composed", composed, out, kOutput);
  ExpectNear("composed d", Gradients(composed, {x.projection}, x.upstream)[0],
             Gradients(out, {x.projection}, x.upstream)[0], kGradient);
}

TEST(ComponentModes, AgreeWithTheReference) {
  const Inputs x;
  reference::HybridInput in = x.ForReference();
  Array window = reference::SoftmaxOnly(kSizes, kSomeOptions, in);
  Array sinks = reference::SoftmaxOnly(kSizes, {0, 8, false, false}, in);
  const at::IntArrayRef shape = x.upstream.sizes();
  ExpectNear("window", WindowAttention(x.q, x.k, x.v, 16, 3), ToTensor(window, shape), kOutput);
  ExpectNear("sinks", SinksAttention(x.q, x.k, x.v, 8), ToTensor(sinks, shape), kOutput);
  reference::Teacher teacher = reference::CausalSoftmax(kSizes, in.q, in.k, in.v);
  const SoftmaxResult softmax = CausalSoftmax(x.q, x.k, x.v);
  ExpectNear("teacher", softmax.out_BHTd, ToTensor(teacher.out, shape), kOutput);
  ExpectNear("lse", softmax.lse_BHT, ToTensor(teacher.lse, {kB, kH, kT}), kOutput);
  EXPECT_TRUE(softmax.out_BHTd.transpose(1, 2).is_contiguous());
}

TEST(ComponentModes, HybridForwardReportsTheLinearShareAndReadsOtherState) {
  const Inputs x, other;
  reference::HybridInput in = x.ForReference();
  in.phi_k = other.ForReference().phi_k;
  in.v_linear = ToArray(other.v);
  reference::HybridOutput want = reference::Hybrid(kSizes, kSomeOptions, in);
  const HybridDiagnostics got = HybridForward(x.q, x.k, x.v, HedgehogFeatureMap(x.q, x.w_q),
                                              HedgehogFeatureMap(other.k, other.w_k), other.v,
                                              at::sigmoid(x.theta), SomeOptions());
  ExpectNear("out", got.out_BHTd, ToTensor(want.out, x.upstream.sizes()), kOutput);
  ExpectNear("mass", got.linear_mass_BHT, ToTensor(want.linear_mass, {kB, kH, kT}), kOutput);
}

TEST(Transfer, HybridOutputsEqualsAutogradOfTheComposition) {
  const Inputs x;
  const SoftmaxResult teacher = CausalSoftmax(x.q, x.k, x.v);
  const at::Tensor out = HybridAttentionWithMaps(x.q.detach(), x.k.detach(), x.v.detach(), x.w_q,
                                                 x.w_k, at::sigmoid(x.theta), SomeOptions());
  const at::Tensor loss = out.sub(teacher.out_BHTd).square().mean().mul(1000.0);
  const auto want = Gradients(loss, {x.w_q, x.w_k, x.theta}, at::ones({}, at::kDouble));
  const TransferResult got = TransferHybridOutputs(x.q, x.k, x.v, teacher.out_BHTd, x.w_q, x.w_k,
                                                   x.theta, SomeOptions(), 1000.0, 0.25);
  EXPECT_NEAR(got.loss, loss.item().toDouble(), kOutput * got.loss);
  ExpectNear("d_w_q", got.d_w_q, want[0].mul(0.25), kGradient);
  ExpectNear("d_w_k", got.d_w_k, want[1].mul(0.25), kGradient);
  ExpectNear("d_theta", got.d_theta, want[2].mul(0.25), kGradient);
}

TEST(Transfer, WeightsEqualsAutogradOfTheLossAndTheReference) {
  const Inputs x;
  const at::Tensor lse = CausalSoftmax(x.q, x.k, x.v).lse_BHT;
  const at::Tensor loss =
      AttentionWeightsLoss(x.q, x.k, lse, HedgehogFeatureMap(x.q.detach(), x.w_q),
                           HedgehogFeatureMap(x.k.detach(), x.w_k));
  EXPECT_NEAR(loss.item().toDouble(),
              reference::WeightsLoss(kSizes, x.ForReference(), ToArray(lse)).loss, kOutput * 10);
  const auto want = Gradients(loss, {x.w_q, x.w_k}, at::ones({}, at::kDouble).mul(0.5));
  const TransferResult got = TransferWeights(x.q, x.k, x.v, lse, x.w_q, x.w_k, 0.5);
  EXPECT_NEAR(got.loss, loss.item().toDouble(), kOutput * 10);
  ExpectNear("d_w_q", got.d_w_q, want[0], kGradient);
  ExpectNear("d_w_k", got.d_w_k, want[1], kGradient);
}

TEST(Attention, IsBitwiseTheSameForAnyNumberOfThreads) {
  const Inputs x;
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> runs[2];
  for (const int n : {1, 2}) {
    at::set_num_threads(n);
    const at::Tensor out =
        HybridAttentionWithMaps(x.q, x.k, x.v, x.w_q, x.w_k, at::sigmoid(x.theta), SomeOptions());
    runs[n - 1] = Gradients(out, {x.projection, x.w_q, x.w_k, x.theta}, x.upstream);
    runs[n - 1].push_back(out.detach());
  }
  at::set_num_threads(threads);
  for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(runs[0][i].equal(runs[1][i])) << i;
}

TEST(Attention, RefusesWhatItCannotRead) {
  const Inputs x;
  ExpectRefusal("k has shape", [&] { CausalSoftmax(x.q, x.k.narrow(2, 0, 50), x.v); });
  ExpectRefusal("k is Float", [&] { CausalSoftmax(x.q, x.k.to(at::kFloat), x.v); });
  ExpectRefusal("must divide the 4 query heads", [&] {
    const at::Tensor three = at::randn({kB, 3, kT, kD}, at::kDouble);
    CausalSoftmax(x.q, three, three);
  });
  ExpectRefusal("head dimension is 12; must be a multiple of 8", [&] {
    const at::Tensor odd = x.q.narrow(3, 0, 12);
    WindowAttention(odd, odd, odd, 4, 0);
  });
  ExpectRefusal("window is 0; must be at least 1", [&] { WindowAttention(x.q, x.k, x.v, 0, 0); });
  ExpectRefusal("num_sinks is 0", [&] { SinksAttention(x.q, x.k, x.v, 0); });
  ExpectRefusal("w_k has shape", [&] {
    HybridAttentionWithMaps(x.q, x.k, x.v, x.w_q, x.w_k.narrow(0, 0, 2), x.theta, SomeOptions());
  });
  ExpectRefusal("width is 20; must be a multiple of 8", [&] {
    const at::Tensor w = x.w_q.narrow(2, 0, 20);
    HedgehogFeatureMap(x.q, w);
  });
  ExpectRefusal("gamma is undefined", [&] {
    HybridAttentionWithMaps(x.q, x.k, x.v, x.w_q, x.w_k, at::Tensor(), SomeOptions());
  });
  ExpectRefusal("0 tokens", [&] {
    const at::Tensor none = x.q.narrow(2, 0, 0);
    CausalSoftmax(none, none, none);
  });
}

}  // namespace
}  // namespace tandem::testing
