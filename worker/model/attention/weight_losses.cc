#include "worker/model/attention/weight_losses.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/log.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/max.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "worker/model/attention/row_blocks.h"
#include "worker/model/attention/tiles.h"

namespace tandem::attention {
namespace {

using List = std::vector<at::Tensor>;
constexpr double kEpsilon = 1e-12;  // on the un-normalised x, method.md §6.1

at::Tensor Leaf(const at::Tensor& x) {
  return x.defined() ? x.detach().set_requires_grad(true) : x;
}

// What trains, and the features made of it, under autograd.
struct Student {
  explicit Student(const TransferCall& call)
      : w_q(Leaf(call.attention.w_q)),
        w_k(Leaf(call.attention.w_k)),
        b_q(Leaf(call.attention.b_q)),
        b_k(Leaf(call.attention.b_k)),
        theta(Leaf(call.theta)) {
    const at::AutoGradMode gradients_on(true);
    const AttentionCall& a = call.attention;
    phi_q = FeatureMap(a.form, a.q.detach(), w_q, b_q);
    phi_k = FeatureMap(a.form, a.k.detach(), w_k, b_k);
  }

  at::Tensor w_q, w_k, b_q, b_k, theta, phi_q, phi_k;
};

// x of a block: (N,G,R,F), (N,g,J,F) -> (N,G,R,J).
at::Tensor Pairs(const at::Tensor& phi_q, const at::Tensor& phi_k) {
  if (phi_k.size(1) > 1 || phi_q.size(1) == 1) return at::matmul(phi_q, phi_k.transpose(-1, -2));
  return at::matmul(phi_q.flatten(1, 2), phi_k.squeeze(1).transpose(-1, -2))
      .unflatten(1, {phi_q.size(1), phi_q.size(2)});
}

// The fixed part of a block: what q, k and the teacher say.
struct Target {
  Target(const TransferCall& call, const RowBlock& block)
      : scores(CausalScores(block, block.Rows(call.attention.q.detach()),
                            block.Keys(call.attention.k.detach()))),
        p(at::exp(scores.sub(block.Rows(call.teacher.lse_BHT.unsqueeze(-1))))),
        later(KeyPositions(block, p.device()).gt(RowPositions(block, p.device()))) {}

  at::Tensor scores, p, later;  // (N,G,R,J), p = 0 and scores = -inf after the row
};

at::Tensor WeightsRows(const Target& target, const at::Tensor& x) {
  const at::Tensor mass = x.masked_fill(target.later, 0).sum(-1);
  return mass.log().sub(target.p.mul(x.add(kEpsilon).log()).sum(-1));
}

// gamma (N,G,1,1), differentiable.
at::Tensor HybridRows(const Target& target, const RowBlock& block, const TransferCall& call,
                      const at::Tensor& x, const at::Tensor& gamma) {
  const AttentionForm& form = call.attention.form;
  const int64_t num_tokens = call.attention.q.size(2);
  const at::Tensor i = RowPositions(block, x.device()), j = KeyPositions(block, x.device());
  const at::Tensor window =
      j.ge(WindowStart(i, form, num_tokens)).logical_or(j.lt(form.sinks)).logical_and(j.le(i));
  const at::Tensor outside = window.logical_or(target.later).logical_not();
  const double masked = -std::numeric_limits<double>::infinity();
  const at::Tensor in_window = target.scores.masked_fill(window.logical_not(), masked);
  const at::Tensor below = in_window.sub(std::get<0>(at::max(in_window, -1, true)));
  const at::Tensor scaled = form.affine ? x.mul(gamma.neg().add(1)) : x;
  const at::Tensor total = at::exp(below)
                               .sum(-1)
                               .mul(gamma.squeeze(-1))
                               .add(scaled.masked_fill(outside.logical_not(), 0).sum(-1));
  const at::Tensor log_e = below.masked_fill(window.logical_not(), 0).add(gamma.log());
  const at::Tensor log_weight = at::where(window, log_e, scaled.add(kEpsilon).log());
  return total.log().sub(target.p.mul(log_weight).sum(-1));
}

// The loss of every block and its gradients to features and gamma, then to what trains.
class StreamedLoss {
 public:
  StreamedLoss(const TransferCall& call, bool hybrid)
      : call_(call), hybrid_(hybrid), student_(call) {}

  TransferResult Run() {
    const at::NoGradGuard no_gradients;
    const at::Tensor& q = call_.attention.q;
    rows_ = static_cast<double>(q.size(0) * q.size(1) * q.size(2));
    d_phi_q_ = at::empty(student_.phi_q.sizes(), student_.phi_q.options());
    d_phi_k_ = at::zeros_like(student_.phi_k.detach());
    if (hybrid_) {
      gamma_ = ActivateWindowFactor(student_.theta.detach(), call_.factor);
      d_gamma_ = at::zeros_like(gamma_);
    }
    ForRowBlocks(q, call_.attention.k, [&](const RowBlock& block) { AddBlock(block); });
    return Finish();
  }

 private:
  void AddBlock(const RowBlock& block) {
    const Target target(call_, block);
    const at::AutoGradMode gradients_on(true);
    const at::Tensor phi_q = Leaf(block.Rows(student_.phi_q.detach())),
                     phi_k = Leaf(block.HeadKeys(student_.phi_k.detach())), gamma = Leaf(gamma_);
    const at::Tensor x = Pairs(phi_q, phi_k);
    const at::Tensor losses = hybrid_ ? HybridRows(target, block, call_, x, block.PerHead(gamma))
                                      : WeightsRows(target, x);
    List inputs = {phi_q, phi_k};
    if (hybrid_) inputs.push_back(gamma);
    const List g = torch::autograd::grad(
        {losses}, inputs, {at::full_like(losses.detach(), call_.grad_scale / rows_)});
    const at::NoGradGuard no_gradients;
    loss_ += losses.detach().sum(at::kDouble).item<double>() / rows_;
    block.CopyRows(g[0], d_phi_q_);
    block.AddKeys(g[1], d_phi_k_);
    if (hybrid_) d_gamma_.add_(g[2]);
  }

  TransferResult Finish() {
    const at::AutoGradMode gradients_on(true);
    List inputs = {student_.w_q, student_.w_k};
    const bool biased = student_.b_q.defined();
    if (biased) inputs.insert(inputs.end(), {student_.b_q, student_.b_k});
    const List g =
        torch::autograd::grad({student_.phi_q, student_.phi_k}, inputs, {d_phi_q_, d_phi_k_});
    TransferResult result;
    result.loss = loss_;
    result.d_w_q = g[0];
    result.d_w_k = g[1];
    if (biased) result.d_b_q = g[2];
    if (biased) result.d_b_k = g[3];
    if (hybrid_) {
      result.d_theta = torch::autograd::grad({ActivateWindowFactor(student_.theta, call_.factor)},
                                             {student_.theta}, {d_gamma_})[0];
    }
    return result;
  }

  const TransferCall& call_;
  const bool hybrid_;
  const Student student_;
  double rows_ = 1, loss_ = 0;
  at::Tensor gamma_, d_gamma_, d_phi_q_, d_phi_k_;
};

}  // namespace

TransferResult GeneralWeights(const TransferCall& call) {
  return StreamedLoss(call, false).Run();
}

TransferResult GeneralHybridWeights(const TransferCall& call) {
  const AttentionForm& form = call.attention.form;
  TORCH_CHECK(form.span == Span::kOutside && form.mixing == Mixing::kShared && !form.lolcats_defect,
              "transfer objective hybrid_weights needs linear.span outside, mixing.kind shared and "
              "compat none");
  return StreamedLoss(call, true).Run();
}

}  // namespace tandem::attention
