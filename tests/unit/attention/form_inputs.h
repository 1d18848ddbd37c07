// Random calls of any attention form, and what the double-precision reference says of them.
#pragma once

#include <ATen/ops/from_blob.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <string>
#include <vector>

#include "kernels/reference/attention.h"
#include "tests/unit/attention/tensor_compare.h"
#include "worker/model/attention/form.h"

namespace tandem::testing {

inline reference::Array ToArray(const at::Tensor& x) {
  const at::Tensor c = x.detach().contiguous();
  const double* data = c.const_data_ptr<double>();
  return reference::Array(data, data + c.numel());
}

inline at::Tensor ToTensor(reference::Array values, at::IntArrayRef shape) {
  return at::from_blob(values.data(), shape, at::kDouble).clone();
}

// One call in double, its tensors leaves. B 2, H 4, K 2, d 8, f 8 unless said otherwise.
struct FormInputs {
  explicit FormInputs(const AttentionForm& form, int64_t num_tokens, bool tied = false,
                      int64_t batch = 2)
      : B(batch), T(num_tokens), is_tied(tied) {
    const auto leaf = [](const at::Tensor& x) { return x.set_requires_grad(true); };
    call.form = form;
    call.q = leaf(at::randn({B, H, T, d}, at::kDouble));
    call.k = leaf(at::randn({B, K, T, d}, at::kDouble));
    call.v = leaf(at::randn({B, K, T, d}, at::kDouble));
    call.w_q = leaf(at::randn({H, d, f}, at::kDouble).mul(0.4));
    call.w_k = leaf(at::randn({tied ? K : H, d, f}, at::kDouble).mul(0.4));
    call.gamma = leaf(at::rand({H}, at::kDouble).mul(0.5).add(0.1));
    if (form.map == FeatureMapKind::kRelu) AddBias();
    upstream = at::randn({B, H, T, d}, at::kDouble);
  }

  int64_t maps() const { return is_tied ? K : H; }
  // One number per map for relu, else a row.
  void AddBias() {
    const auto leaf = [this](int64_t count) {
      const bool one = call.form.map == FeatureMapKind::kRelu;
      const at::Tensor b = at::randn({count, one ? 1 : f}, at::kDouble).mul(0.3);
      return (one ? b.squeeze(1) : b).set_requires_grad(true);
    };
    call.b_q = leaf(H);
    call.b_k = leaf(maps());
  }

  reference::Sizes Sizes(int64_t kv_heads) const {
    return {B, H, kv_heads, T, d, f, call.form.FeaturesOf(f)};
  }
  reference::Options Options() const {
    const AttentionForm& form = call.form;
    reference::Options options{form.window, form.sinks, form.span == Span::kAll, form.detach_max};
    options.terraced = form.window_kind == WindowKind::kTerraced;
    options.affine = form.affine;
    options.gain = form.window_gain;
    options.mass = form.mixing == Mixing::kMass;
    options.window_off = call.window_off;
    options.align_end = form.align_end;
    options.lolcats = form.lolcats_defect;
    options.tokens = T;
    return options;
  }

  // A map per query head: the reference knows no tied ones.
  at::Tensor PerHead(const at::Tensor& x) const {
    return x.defined() && x.size(0) != H ? x.repeat_interleave(H / K, 0) : x;
  }
  reference::Array Features(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) const {
    return reference::FeatureMap(Sizes(x.size(1)), Kind(), ToArray(x), ToArray(PerHead(w)),
                                 Bias(b));
  }
  reference::FeatureMapGradient FeaturesBackward(const at::Tensor& x, const at::Tensor& w,
                                                 const at::Tensor& b,
                                                 const reference::Array& d_phi) const {
    return reference::FeatureMapBackward(Sizes(x.size(1)), Kind(), ToArray(x), ToArray(PerHead(w)),
                                         Bias(b), d_phi);
  }
  reference::MapKind Kind() const {
    switch (call.form.map) {
      case FeatureMapKind::kHedgehog:
        return reference::MapKind::kHedgehog;
      case FeatureMapKind::kExp:
        return reference::MapKind::kExp;
      case FeatureMapKind::kExpShifted:
        return reference::MapKind::kExpShifted;
      case FeatureMapKind::kRelu:
        return reference::MapKind::kRelu;
      default:
        return reference::MapKind::kElu;
    }
  }
  reference::Array Bias(const at::Tensor& b) const {
    return b.defined() ? ToArray(PerHead(b)) : reference::Array{};
  }

  reference::HybridInput ForReference() const {
    reference::HybridInput in;
    in.q = ToArray(call.q);
    in.k = ToArray(call.k);
    in.v = ToArray(call.v);
    in.phi_q = Features(call.q, call.w_q, call.b_q);
    in.phi_k = Features(call.k_linear.defined() ? call.k_linear : call.k, call.w_k, call.b_k);
    if (call.v_linear.defined()) in.v_linear = ToArray(call.v_linear);
    in.gamma = ToArray(call.gamma);
    return in;
  }

  // The leaves, and the reference's gradients in the same order.
  std::vector<at::Tensor> Leaves() const {
    std::vector<at::Tensor> leaves = {call.q, call.k, call.v, call.w_q, call.w_k, call.gamma};
    if (call.b_q.defined()) leaves.insert(leaves.end(), {call.b_q, call.b_k});
    return leaves;
  }
  at::Tensor SumTied(const at::Tensor& of_heads) const {
    if (!is_tied) return of_heads;
    return of_heads.unflatten(0, {K, H / K}).sum(1);
  }
  std::vector<at::Tensor> Expected(const reference::HybridGradient& g) const {
    const auto of_q = FeaturesBackward(call.q, call.w_q, call.b_q, g.d_phi_q);
    const auto of_k = FeaturesBackward(call.k, call.w_k, call.b_k, g.d_phi_k);
    std::vector<at::Tensor> expected = {
        ToTensor(g.d_q, call.q.sizes()).add(ToTensor(of_q.d_x, call.q.sizes())),
        ToTensor(g.d_k, call.k.sizes()).add(ToTensor(of_k.d_x, call.k.sizes())),
        ToTensor(g.d_v, call.v.sizes()),
        ToTensor(of_q.d_w, {H, d, f}),
        SumTied(ToTensor(of_k.d_w, {H, d, f})),
        ToTensor(g.d_gamma, {H})};
    if (call.b_q.defined()) {
      std::vector<int64_t> of_heads = call.b_k.sizes().vec();
      of_heads[0] = H;
      expected.push_back(ToTensor(of_q.d_bias, call.b_q.sizes()));
      expected.push_back(SumTied(ToTensor(of_k.d_bias, of_heads)));
    }
    return expected;
  }

  const int64_t B, H = 4, K = 2, T, d = 8, f = 8;
  const bool is_tied;
  AttentionCall call;
  at::Tensor upstream;
};

inline const char* const kLeafNames[] = {"d_q",   "d_k",     "d_v",   "d_w_q",
                                         "d_w_k", "d_gamma", "d_b_q", "d_b_k"};

inline std::vector<at::Tensor> GradientsOf(const at::Tensor& out,
                                           const std::vector<at::Tensor>& leaves,
                                           const at::Tensor& upstream) {
  return torch::autograd::grad({out}, leaves, {upstream}, true, false, /*allow_unused=*/true);
}

}  // namespace tandem::testing
