// Every feature map of method.md §2 as plain ATen.
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/max.h>
#include <ATen/ops/softmax.h>

#include "worker/model/attention/form.h"

namespace tandem {
namespace {

constexpr double kFloor = 1e-12, kExpLimit = 20;  // method.md §2

// u = x W per map: (B,X,T,d), (Y,d,f) -> (B,Y,T,f); map y reads head y / (Y/X) of x.
at::Tensor Project(const at::Tensor& x, const at::Tensor& w) {
  const int64_t B = x.size(0), X = x.size(1), T = x.size(2), d = x.size(3), f = w.size(2);
  const int64_t maps = w.size(0) / X;
  const at::Tensor rows = x.transpose(0, 1).reshape({X, B * T, d});
  const at::Tensor weights = w.reshape({X, maps, d, f}).transpose(1, 2).reshape({X, d, maps * f});
  return at::bmm(rows, weights)
      .view({X, B, T, maps, f})
      .permute({1, 0, 3, 2, 4})
      .reshape({B, X * maps, T, f});
}

// phi before its floor, of one side: u or -u.
at::Tensor OneSide(FeatureMapKind kind, const at::Tensor& u) {
  switch (kind) {
    case FeatureMapKind::kHedgehog:
      return at::softmax(u, -1);
    case FeatureMapKind::kExp:
      return at::exp(u.clamp(-kExpLimit, kExpLimit));
    case FeatureMapKind::kExpShifted:
      return at::exp(u.sub(std::get<0>(at::max(u, -1, true))));
    case FeatureMapKind::kRelu:
      return u;
    case FeatureMapKind::kElu:
      break;
  }
  return at::elu(u).add(1);
}

}  // namespace

at::Tensor FeatureMap(const AttentionForm& form, const at::Tensor& x, const at::Tensor& w,
                      const at::Tensor& bias) {
  TORCH_CHECK(x.dim() == 4 && w.dim() == 3 && w.size(1) == x.size(3) && x.size(1) >= 1 &&
                  w.size(0) % x.size(1) == 0,
              "a feature map of shape ", w.sizes(), " does not read heads of shape ", x.sizes(),
              "; must be (Y,d,f) and (B,X,T,d) with X dividing Y");
  TORCH_CHECK(!bias.defined() || bias.numel() == w.size(0) ||
                  bias.sizes() == at::IntArrayRef({w.size(0), w.size(2)}),
              "a feature map's bias has shape ", bias.sizes(), " beside a map of shape ", w.sizes(),
              "; must be (Y) or (Y,f)");
  at::Tensor u = Project(x, w);
  if (bias.defined()) u = u.add(bias.reshape({w.size(0), 1, -1}));
  at::Tensor phi = OneSide(form.map, u);
  if (form.two_sided) phi = at::cat({phi, OneSide(form.map, u.neg())}, -1);
  return phi.clamp_min(kFloor);  // exp is above it anyhow
}

}  // namespace tandem
