// Forward-only attention: the teacher and the component modes of the evaluation.
#include <ATen/ops/empty.h>

#include "worker/model/attention/general.h"
#include "worker/model/attention/kernel_call.h"

namespace tandem {

SoftmaxResult CausalSoftmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  if (q.dim() == 4 && !attention::KernelsTake(q, 0)) return attention::GeneralTeacher(q, k, v);
  const AttentionSizes s = attention::CheckHeads(q, k, v);
  const at::Tensor query = attention::Readable(q.detach());
  const at::Tensor key = attention::Readable(k.detach());
  const at::Tensor value = attention::Readable(v.detach());
  SoftmaxResult result{attention::EmptyHeads(query, s.batch, s.heads, s.tokens, s.dim),
                       at::empty({s.batch, s.heads, s.tokens}, query.options())};
  attention::ForType(query, [&](auto zero) {
    using T = decltype(zero);
    SoftmaxProblem<T> p;
    p.sizes = s;
    p.q = attention::RowsOf<const T>(query);
    p.k = attention::RowsOf<const T>(key);
    p.v = attention::RowsOf<const T>(value);
    p.out = attention::RowsOf<T>(result.out_BHTd);
    p.lse = attention::MutableDataOf<T>(result.lse_BHT);
    const AttentionKernels<T>& kernels = Kernels<T>();
    attention::ForEachHead<T>(s, kernels.softmax_scratch(s),
                              [&](int64_t bh, T* scratch) { kernels.softmax(p, bh, scratch); });
  });
  return result;
}

at::Tensor SinksAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          int64_t num_sinks) {
  TORCH_CHECK(num_sinks >= 1, "num_sinks is ", num_sinks, "; must be at least 1");
  attention::HybridInputs in;
  in.sizes = attention::CheckHeads(q, k, v);
  in.linear = false;
  in.options.window = 0;
  in.options.sinks = num_sinks;
  in.q = attention::Readable(q.detach());
  in.k = attention::Readable(k.detach());
  in.v = attention::Readable(v.detach());
  return attention::RunForward(in, {});
}

HybridDiagnostics HybridForward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const at::Tensor& phi_q, const at::Tensor& phi_k,
                                const at::Tensor& v_linear, const at::Tensor& gamma_H,
                                const HybridOptions& options) {
  attention::HybridInputs in;
  in.sizes = attention::CheckHeads(q, k, v);
  AttentionSizes& s = in.sizes;
  attention::CheckTensor("phi_q", phi_q, q, {s.batch, s.heads, s.tokens, -1});
  attention::CheckTensor("phi_k", phi_k, q, phi_q.sizes());
  attention::CheckTensor("v_linear", v_linear, q, v.sizes());
  attention::CheckTensor("gamma", gamma_H, q, {s.heads});
  attention::CheckOptions(options);
  TORCH_CHECK(phi_q.size(3) % 2 == 0, "phi_q has ", phi_q.size(3), " features; must be even");
  s.map_dim = phi_q.size(3) / 2;
  attention::CheckDims(s);
  in.options = options;
  in.q = attention::Readable(q.detach());
  in.k = attention::Readable(k.detach());
  in.v = attention::Readable(v.detach());
  if (!v_linear.is_same(v)) in.v_linear = attention::Readable(v_linear.detach());
  in.phi_q = attention::Readable(phi_q.detach());
  in.phi_k = attention::Readable(phi_k.detach());
  in.gamma = gamma_H.detach().contiguous();
  HybridDiagnostics result;
  result.linear_mass_BHT = at::empty({s.batch, s.heads, s.tokens}, in.q.options());
  result.out_BHTd = attention::RunForward(in, result.linear_mass_BHT);
  return result;
}

}  // namespace tandem
