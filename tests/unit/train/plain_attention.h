// Attention as method.md §3 writes it, quadratic in T, differentiable by autograd; for
// plain_model.h. Shares nothing with worker/model/attention but the form's words. Shapes
// (B,H,T,...), k and v repeated for the query heads; masks (B,1,T,T).
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>

#include "worker/model/attention/form.h"
#include "worker/train/stage.h"

namespace tandem::testing::plain {

// Where a row's document begins, (B,T).
inline at::Tensor Beginnings(const StepBatch& batch) {
  at::Tensor begins = at::zeros_like(batch.ids_BT);
  for (size_t b = 0; b < batch.document_starts.size(); ++b)
    for (const int64_t start : batch.document_starts[b])
      begins.select(0, static_cast<int64_t>(b)).slice(0, start).fill_(start);
  return begins;
}

// Keys of a row, of its own document.
inline at::Tensor Causal(const StepBatch& batch) {
  const at::Tensor j = at::arange(batch.ids_BT.size(1)), i = j.unsqueeze(1);
  return j.le(i).logical_and(j.ge(Beginnings(batch).unsqueeze(2))).unsqueeze(1);
}

// The softmax set W_i; positions count from the document's beginning, blocks that end with the
// sequence (align_end, without documents) from before it.
inline at::Tensor Window(const StepBatch& batch, const AttentionForm& form) {
  const at::Tensor begins = Beginnings(batch).unsqueeze(2);
  const at::Tensor j = at::arange(batch.ids_BT.size(1)).sub(begins);
  const at::Tensor i = at::arange(batch.ids_BT.size(1)).unsqueeze(1).sub(begins);
  const int64_t w = form.window, T = batch.ids_BT.size(1);
  const int64_t before = form.align_end ? (T + w - 1) / w * w - T : 0;
  const auto block = [&](const at::Tensor& x) { return x.add(before).div(w, "floor"); };
  const at::Tensor near =
      form.window_kind == WindowKind::kSliding ? j.gt(i - form.window) : block(j).ge(block(i) - 1);
  return near.logical_or(j.lt(form.sinks)).unsqueeze(1).logical_and(Causal(batch));
}

inline at::Tensor Scores(const at::Tensor& q, const at::Tensor& k) {
  return q.matmul(k.transpose(2, 3)).div(std::sqrt(static_cast<double>(q.size(3))));
}

inline at::Tensor Softmax(const at::Tensor& scores, const at::Tensor& keys) {
  return scores.masked_fill(keys.logical_not(), -INFINITY).softmax(-1);
}

// One side of the features before their floor.
inline at::Tensor Side(FeatureMapKind kind, const at::Tensor& u) {
  switch (kind) {
    case FeatureMapKind::kHedgehog:
      return u.softmax(-1);
    case FeatureMapKind::kExp:
      return u.clamp(-20, 20).exp();
    case FeatureMapKind::kExpShifted:
      return u.sub(u.amax(-1, true)).exp();
    case FeatureMapKind::kRelu:
      return u;
    case FeatureMapKind::kElu:
      break;
  }
  return at::elu(u).add(1);
}

// x (B,H,T,d), map (H,d,f), bias (H), (H,f) or undefined.
inline at::Tensor Features(const AttentionForm& form, const at::Tensor& x, const at::Tensor& map,
                           const at::Tensor& bias) {
  at::Tensor u = x.matmul(map);
  if (bias.defined()) u = u.add(bias.view({bias.size(0), 1, -1}));
  at::Tensor phi = Side(form.map, u);
  if (form.two_sided) phi = at::cat({phi, Side(form.map, u.neg())}, -1);
  return phi.clamp_min(1e-12);
}

// e and x of every pair, 0 where a branch does not read the key; `off` (B,1,1,1): sequences whose
// window gives nothing where the linear branch has keys.
struct Branches {
  at::Tensor window, linear;
  at::Tensor Weights() const {
    const at::Tensor sum = window.add(linear);
    return sum.div(sum.sum(-1, true));
  }
};
inline Branches HybridBranches(const AttentionForm& form, const at::Tensor& scores,
                               const at::Tensor& x, const StepBatch& batch, const at::Tensor& gamma,
                               const at::Tensor& off) {
  const at::Tensor causal = Causal(batch), window = Window(batch, form);
  const at::Tensor in_window = scores.masked_fill(window.logical_not(), -INFINITY);
  const at::Tensor top = in_window.amax(-1, true);
  const at::Tensor e = in_window.sub(form.detach_max ? top.detach() : top).exp().mul(gamma);
  const at::Tensor read =
      form.span == Span::kAll ? causal : causal.logical_and(window.logical_not());
  const at::Tensor scaled = form.affine ? x.mul(gamma.neg().add(1)) : x;
  return {e.masked_fill(off.logical_and(read.any(-1, true)), 0),
          scaled.masked_fill(read.logical_not(), 0)};
}

}  // namespace tandem::testing::plain
