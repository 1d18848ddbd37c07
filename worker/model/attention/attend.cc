// Attend: which operator runs a call, and the split of a layer into retained and converted heads.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include "worker/model/attention/form.h"
#include "worker/model/attention/general.h"
#include "worker/model/attention/retention.h"

namespace tandem {
namespace attention {

HybridOptions OptionsOf(const AttentionForm& form) {
  return {form.window, form.sinks, form.span, form.detach_max};
}

// The fused kernels know one form; the rest is the general operator's.
bool FitsKernels(ComponentMode mode, const AttentionCall& call) {
  if (mode == ComponentMode::kSinksOnly) return KernelsTake(call.q, 0);
  const bool window = mode == ComponentMode::kHybrid || mode == ComponentMode::kWindowOnly;
  if (window && call.form.window_kind != WindowKind::kSliding) return false;
  if (mode == ComponentMode::kWindowOnly) return KernelsTake(call.q, 0);
  if (call.form.map != FeatureMapKind::kHedgehog || !call.form.two_sided || call.b_q.defined())
    return false;
  if (mode == ComponentMode::kHybrid &&
      (call.form.mixing != Mixing::kShared || call.form.affine || call.window_off))
    return false;
  return KernelsTake(call.q, call.w_q.size(2));
}

// A map per query head: a tied one repeated for the heads of its group.
at::Tensor PerHead(const at::Tensor& w, int64_t heads) {
  if (w.size(0) == heads) return w;
  const int64_t group = heads / w.size(0);
  return w.unsqueeze(1).expand({w.size(0), group, w.size(1), w.size(2)}).flatten(0, 1);
}

}  // namespace attention

namespace {

using attention::FitsKernels;
using attention::OptionsOf;
using attention::PerHead;

bool WantsGradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return at::GradMode::is_enabled() &&
         (q.requires_grad() || k.requires_grad() || v.requires_grad());
}

at::Tensor Softmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  attention::CheckGeneralHeads(q, k, v);
  if (!attention::KernelsTake(q, 0)) return attention::GeneralSoftmax(q, k, v);
  if (WantsGradient(q, k, v)) return WindowAttention(q, k, v, q.size(2), 0);
  return CausalSoftmax(q, k, v).out_BHTd;
}

at::Tensor GammaOf(const AttentionCall& call) {
  return call.form.window_gain == 1 ? call.gamma : call.gamma.mul(call.form.window_gain);
}

HybridDiagnostics FusedWithMass(const AttentionCall& call) {
  const at::Tensor& k = call.k_linear.defined() ? call.k_linear : call.k;
  const at::Tensor& v = call.v_linear.defined() ? call.v_linear : call.v;
  return HybridForward(call.q, call.k, call.v, HedgehogFeatureMap(call.q, call.w_q),
                       HedgehogFeatureMap(k, PerHead(call.w_k, call.q.size(1))), v, GammaOf(call),
                       OptionsOf(call.form));
}

at::Tensor Fused(ComponentMode mode, const AttentionCall& call) {
  const AttentionForm& form = call.form;
  if (mode == ComponentMode::kSinksOnly)
    return SinksAttention(call.q, call.k, call.v, call.mode_sinks);
  if (mode == ComponentMode::kWindowOnly)
    return WindowAttention(call.q, call.k, call.v, form.window, form.sinks);
  const at::Tensor w_k = PerHead(call.w_k, call.q.size(1));
  if (mode == ComponentMode::kLinearOnly)
    return LinearAttentionWithMaps(call.q, call.k, call.v, call.w_q, w_k);
  if (call.k_linear.defined() || call.v_linear.defined()) return FusedWithMass(call).out_BHTd;
  return HybridAttentionWithMaps(call.q, call.k, call.v, call.w_q, w_k, GammaOf(call),
                                 OptionsOf(form));
}

}  // namespace

at::Tensor Attend(ComponentMode mode, const AttentionCall& call) {
  if (mode == ComponentMode::kNone) return {};
  if (mode == ComponentMode::kSoftmax) return Softmax(call.q, call.k, call.v);
  if (!call.retained.empty() && mode != ComponentMode::kSinksOnly) {
    const attention::HeadSplit split(call.q, call.k, call.retained);
    const at::Tensor softmax = Softmax(split.RetainedQueries(call.q), split.RetainedKeys(call.k),
                                       split.RetainedKeys(call.v));
    if (split.retains_all()) return softmax;
    return split.Join(Attend(mode, split.Converted(call)), softmax);
  }
  attention::CheckCall(mode, call);
  return FitsKernels(mode, call) ? Fused(mode, call) : attention::GeneralAttention(mode, call);
}

HybridDiagnostics AttendWithMass(const AttentionCall& call) {
  const at::NoGradGuard no_gradients;
  if (!call.retained.empty()) {
    const attention::HeadSplit split(call.q, call.k, call.retained);
    const at::Tensor softmax = Softmax(split.RetainedQueries(call.q), split.RetainedKeys(call.k),
                                       split.RetainedKeys(call.v));
    const at::Tensor none =
        at::zeros({softmax.size(0), softmax.size(1), softmax.size(2)}, softmax.options());
    if (split.retains_all()) return {softmax, none};
    const HybridDiagnostics converted = AttendWithMass(split.Converted(call));
    return {split.Join(converted.out_BHTd, softmax), split.Join(converted.linear_mass_BHT, none)};
  }
  attention::CheckCall(ComponentMode::kHybrid, call);
  return FitsKernels(ComponentMode::kHybrid, call) ? FusedWithMass(call)
                                                   : attention::GeneralWithMass(call);
}

}  // namespace tandem
