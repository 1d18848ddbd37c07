// The steps of attention transfer, one call per layer, without autograd.
#include <ATen/ops/empty.h>
#include <ATen/ops/sigmoid.h>

#include <numeric>
#include <vector>

#include "worker/model/attention/kernel_call.h"
#include "worker/model/attention/weights_call.h"

namespace tandem {
namespace attention {

WeightsInputs CollectWeights(const at::Tensor& q, const at::Tensor& k, const at::Tensor& lse) {
  WeightsInputs in;
  in.sizes = CheckHeads(q, k, k);
  CheckTensor("lse", lse, q, {q.size(0), q.size(1), q.size(2)});
  in.q = Readable(q);
  in.k = Readable(k);
  in.lse = lse.contiguous();
  return in;
}

double RunWeights(const WeightsInputs& in, double grad_scale) {
  const AttentionSizes& s = in.sizes;
  std::vector<double> loss(static_cast<size_t>(s.batch * s.heads));
  const double rows = static_cast<double>(s.batch * s.heads * s.tokens);
  ForType(in.q, [&](auto zero) {
    using T = decltype(zero);
    WeightsProblem<T> p;
    p.sizes = s;
    p.q = RowsOf<const T>(in.q);
    p.k = RowsOf<const T>(in.k);
    p.lse = DataOf<T>(in.lse);
    p.phi_q = RowsOf<const T>(in.phi_q);
    p.phi_k = RowsOf<const T>(in.phi_k);
    p.w_q = DataOf<T>(in.w_q);
    p.w_k = DataOf<T>(in.w_k);
    p.d_phi_q = RowsOf<T>(in.d_phi_q);
    p.d_phi_k = RowsOf<T>(in.d_phi_k);
    p.d_w_q = MutableDataOf<T>(in.d_w_q);
    p.d_w_k = MutableDataOf<T>(in.d_w_k);
    p.grad_factor = static_cast<T>(grad_scale / rows);
    p.loss = loss.data();
    const AttentionKernels<T>& kernels = Kernels<T>();
    ForEachHead<T>(s, kernels.weights_scratch(s),
                   [&](int64_t bh, T* scratch) { kernels.weights(p, bh, scratch); });
  });
  return std::accumulate(loss.begin(), loss.end(), 0.0) / rows;
}

}  // namespace attention

namespace {

// The maps of a layer, checked, into sizes.map_dim.
void CheckMaps(const at::Tensor& q, const at::Tensor& w_q, const at::Tensor& w_k,
               AttentionSizes* sizes) {
  attention::CheckTensor("w_q", w_q, q, {sizes->heads, sizes->dim, -1});
  attention::CheckTensor("w_k", w_k, q, w_q.sizes());
  sizes->map_dim = w_q.size(2);
  attention::CheckDims(*sizes);
}

at::Tensor EmptyMapGradient(const at::Tensor& like, const AttentionSizes& s) {
  return at::empty({s.batch, s.heads, s.dim, s.map_dim}, like.options());
}

}  // namespace

TransferResult TransferHybridOutputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const at::Tensor& out_teacher, const at::Tensor& w_q,
                                     const at::Tensor& w_k, const at::Tensor& theta_H,
                                     const HybridOptions& options, double loss_scale,
                                     double grad_scale) {
  attention::HybridInputs in;
  in.sizes = attention::CheckHeads(q, k, v);
  const AttentionSizes& s = in.sizes;
  CheckMaps(q, w_q, w_k, &in.sizes);
  attention::CheckOptions(options);
  attention::CheckTensor("out_teacher", out_teacher, q, q.sizes());
  attention::CheckTensor("theta", theta_H, q, {s.heads});
  in.options = options;
  in.q = attention::Readable(q.detach());
  in.k = attention::Readable(k.detach());
  in.v = attention::Readable(v.detach());
  in.w_q = w_q.detach().contiguous();
  in.w_k = w_k.detach().contiguous();
  in.gamma = at::sigmoid(theta_H.detach());
  const at::Tensor teacher = attention::Readable(out_teacher.detach());
  const at::Tensor d_w_q = EmptyMapGradient(in.q, s), d_w_k = EmptyMapGradient(in.q, s);
  const at::Tensor d_gamma = at::empty({s.batch, s.heads}, in.q.options());
  std::vector<double> squared_error(static_cast<size_t>(s.batch * s.heads));
  const double scale = loss_scale / static_cast<double>(q.numel());
  attention::ForType(in.q, [&](auto zero) {
    using T = decltype(zero);
    const HybridProblem<T> p = attention::Describe<T>(in);
    TransferOutputs<T> to;
    to.teacher = attention::RowsOf<const T>(teacher);
    to.grad_factor = static_cast<T>(2 * scale * grad_scale);
    to.squared_error = squared_error.data();
    to.d_w_q = attention::MutableDataOf<T>(d_w_q);
    to.d_w_k = attention::MutableDataOf<T>(d_w_k);
    to.d_gamma = attention::MutableDataOf<T>(d_gamma);
    const AttentionKernels<T>& kernels = Kernels<T>();
    attention::ForEachHead<T>(s, kernels.hybrid_scratch(p, true), [&](int64_t bh, T* scratch) {
      kernels.hybrid_transfer(p, to, bh, scratch);
    });
  });
  TransferResult result;
  result.loss = scale * std::accumulate(squared_error.begin(), squared_error.end(), 0.0);
  result.d_w_q = attention::SumBatch(d_w_q);
  result.d_w_k = attention::SumBatch(d_w_k);
  result.d_theta = attention::SumBatch(d_gamma).mul(in.gamma).mul(in.gamma.neg().add(1));
  return result;
}

TransferResult TransferWeights(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& lse_BHT, const at::Tensor& w_q,
                               const at::Tensor& w_k, double grad_scale) {
  attention::CheckHeads(q, k, v);
  attention::WeightsInputs in = attention::CollectWeights(q.detach(), k.detach(), lse_BHT.detach());
  CheckMaps(q, w_q, w_k, &in.sizes);
  in.w_q = w_q.detach().contiguous();
  in.w_k = w_k.detach().contiguous();
  in.d_w_q = EmptyMapGradient(in.q, in.sizes);
  in.d_w_k = EmptyMapGradient(in.q, in.sizes);
  TransferResult result;
  result.loss = attention::RunWeights(in, grad_scale);
  result.d_w_q = attention::SumBatch(in.d_w_q);
  result.d_w_k = attention::SumBatch(in.d_w_k);
  return result;
}

}  // namespace tandem
