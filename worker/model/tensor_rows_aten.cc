#include "worker/model/tensor_rows_aten.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include <array>

namespace tandem::aten_rows {
namespace {

// The last dimension alone, (..., D) -> (N, D), a view.
at::Tensor Rows(const at::Tensor& x) {
  return x.view({-1, x.size(-1)});
}

}  // namespace

NormedRows RmsNorm(const at::Tensor& x, const at::Tensor& w_D, double eps) {
  const std::array<int64_t, 1> last = {-1};
  const at::Tensor r = Rows(x).square().mean(last, /*keepdim=*/true).add_(eps).rsqrt_();
  return {Rows(x).mul(r).mul_(w_D).view(x.sizes()), r.view({-1})};
}

at::Tensor RmsNormAgain(const at::Tensor& x, const at::Tensor& w_D, const at::Tensor& inverse_rms) {
  return Rows(x).mul(inverse_rms.view({-1, 1})).mul_(w_D).view(x.sizes());
}

void AddRmsNormBackward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w_D,
                        const at::Tensor& inverse_rms, const at::Tensor& dx) {
  const std::array<int64_t, 1> last = {-1};
  const at::Tensor r = inverse_rms.view({-1, 1});
  const at::Tensor weighted = Rows(dy).mul(w_D);
  const at::Tensor back = weighted.mul(Rows(x)).sum(last, /*keepdim=*/true);
  back.mul_(r).mul_(r).mul_(r).div_(static_cast<double>(w_D.size(0)));
  Rows(dx).addcmul_(weighted, r).addcmul_(Rows(x), back, -1);
}

void Rotate(const at::Tensor& rows_NC, int64_t heads, const RotaryTable& table, bool backward) {
  const int64_t C = rows_NC.size(-1), T = table.cos.size(0), half = table.cos.size(1);
  const at::Tensor pairs =
      rows_NC.view({-1, T, C}).narrow(2, 0, heads * 2 * half).unflatten(2, {heads, 2, half});
  const at::Tensor low = pairs.select(3, 0), high = pairs.select(3, 1);
  const at::Tensor c = table.cos.unsqueeze(1);
  const at::Tensor s = backward ? table.sin.unsqueeze(1).neg() : table.sin.unsqueeze(1);
  const at::Tensor turned = low.mul(c).addcmul_(high, s, -1);
  high.mul_(c).addcmul_(low, s);
  low.copy_(turned);
}

at::Tensor SwiGlu(const at::Tensor& gate_up_N2I) {
  const int64_t I = gate_up_N2I.size(1) / 2;
  return at::silu(gate_up_N2I.narrow(1, 0, I)).mul_(gate_up_N2I.narrow(1, I, I));
}

void SwiGluBackward(const at::Tensor& gate_up_N2I, const at::Tensor& d_out_NI) {
  const int64_t I = gate_up_N2I.size(1) / 2;
  const at::Tensor gate = gate_up_N2I.narrow(1, 0, I), up = gate_up_N2I.narrow(1, I, I);
  const at::Tensor sigmoid = at::sigmoid(gate), silu = gate.mul(sigmoid);
  // sigmoid + silu (1 - sigmoid), in sigmoid's memory.
  const at::Tensor slope = sigmoid.addcmul_(silu, sigmoid.neg().add_(1));
  gate.copy_(slope.mul_(up).mul_(d_out_NI));
  up.copy_(silu.mul_(d_out_NI));
}

at::Tensor CrossEntropy(const at::Tensor& logits_NV, const at::Tensor& labels_N, double scale) {
  const std::array<int64_t, 1> last = {-1};
  const at::Tensor labels = labels_N.view({-1, 1});
  const at::Tensor lse = at::logsumexp(logits_NV, last, /*keepdim=*/true);
  const at::Tensor losses = lse.sub(at::gather(logits_NV, 1, labels)).view({-1});
  if (scale != 0) {
    logits_NV.sub_(lse).exp_().mul_(scale);
    // One label per row: no two additions meet.
    logits_NV.scatter_add_(1, labels, lse.new_full(labels.sizes(), -scale));
  }
  return losses;
}

at::Tensor Argmax(const at::Tensor& logits_NV) {
  return at::argmax(logits_NV, 1);
}

}  // namespace tandem::aten_rows
