// The Hedgehog map and the weights loss as differentiable operators.
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/model/attention/kernel_call.h"
#include "worker/model/attention/weights_call.h"

namespace tandem {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

AttentionSizes CheckMap(const at::Tensor& x, const at::Tensor& w) {
  attention::CheckTensor("x", x, x, {-1, -1, -1, -1});
  attention::CheckTensor("w", w, x, {-1, x.size(3), -1});
  const AttentionSizes sizes{x.size(0), w.size(0), x.size(1), x.size(2), x.size(3), w.size(2)};
  attention::CheckDims(sizes);
  return sizes;
}

class FeatureMapFunction : public torch::autograd::Function<FeatureMapFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& w) {
    const AttentionSizes s = CheckMap(x, w);
    const at::Tensor readable = attention::Readable(x), map = w.contiguous();
    at::Tensor phi = at::empty({s.batch, s.heads, s.tokens, 2 * s.map_dim}, x.options());
    attention::ForType(x, [&](auto zero) {
      using T = decltype(zero);
      MapProblem<T> p;
      p.sizes = s;
      p.x = attention::RowsOf<const T>(readable);
      p.w = attention::DataOf<T>(map);
      p.phi = attention::RowsOf<T>(phi);
      const AttentionKernels<T>& kernels = Kernels<T>();
      attention::ForEachHead<T>(s, kernels.map_scratch(s), [&](int64_t bh, T* scratch) {
        kernels.map_forward(p, bh, scratch);
      });
    });
    ctx->save_for_backward({x, w});
    return phi;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grad_outputs) {
    const variable_list saved = ctx->get_saved_variables();
    const AttentionSizes s = CheckMap(saved[0], saved[1]);
    const at::Tensor x = attention::Readable(saved[0]), w = saved[1].contiguous();
    const at::Tensor d_phi = attention::Readable(grad_outputs[0]);
    at::Tensor d_x, d_w;
    if (ctx->needs_input_grad(0)) d_x = attention::EmptyHeads(x, s.batch, s.heads, s.tokens, s.dim);
    if (ctx->needs_input_grad(1))
      d_w = at::empty({s.batch, s.heads, s.dim, s.map_dim}, x.options());
    attention::ForType(x, [&](auto zero) {
      using T = decltype(zero);
      MapProblem<T> p;
      p.sizes = s;
      p.x = attention::RowsOf<const T>(x);
      p.w = attention::DataOf<T>(w);
      p.d_phi = attention::RowsOf<const T>(d_phi);
      p.d_x = attention::RowsOf<T>(d_x);
      p.d_w = attention::MutableDataOf<T>(d_w);
      const AttentionKernels<T>& kernels = Kernels<T>();
      attention::ForEachHead<T>(s, kernels.map_scratch(s), [&](int64_t bh, T* scratch) {
        kernels.map_backward(p, bh, scratch);
      });
    });
    return {attention::SumGroups(d_x, s.kv_heads), attention::SumBatch(d_w)};
  }
};

// The gradients come with the loss in one pass, so forward computes both and backward only scales.
class WeightsLossFunction : public torch::autograd::Function<WeightsLossFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& lse, const at::Tensor& phi_q,
                            const at::Tensor& phi_k) {
    attention::WeightsInputs in = attention::CollectWeights(q, k, lse);
    AttentionSizes& s = in.sizes;
    attention::CheckTensor("phi_q", phi_q, q, {s.batch, s.heads, s.tokens, -1});
    attention::CheckTensor("phi_k", phi_k, q, phi_q.sizes());
    s.map_dim = phi_q.size(3) / 2;
    TORCH_CHECK(phi_q.size(3) == 2 * s.map_dim, "phi_q has ", phi_q.size(3),
                " features; must be even");
    attention::CheckDims(s);
    in.phi_q = attention::Readable(phi_q);
    in.phi_k = attention::Readable(phi_k);
    if (phi_q.requires_grad() || phi_k.requires_grad()) {
      in.d_phi_q = attention::EmptyHeads(q, s.batch, s.heads, s.tokens, phi_q.size(3));
      in.d_phi_k = attention::EmptyHeads(q, s.batch, s.heads, s.tokens, phi_q.size(3));
    }
    at::Tensor loss = at::empty({}, q.options());
    loss.fill_(attention::RunWeights(in, 1.0));
    ctx->save_for_backward({in.d_phi_q, in.d_phi_k});
    return loss;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grad_outputs) {
    const variable_list saved = ctx->get_saved_variables();
    return {at::Tensor(), at::Tensor(), at::Tensor(), saved[0].mul(grad_outputs[0]),
            saved[1].mul(grad_outputs[0])};
  }
};

}  // namespace

at::Tensor HedgehogFeatureMap(const at::Tensor& x, const at::Tensor& w_Hdf) {
  return FeatureMapFunction::apply(x, w_Hdf);
}

at::Tensor AttentionWeightsLoss(const at::Tensor& q, const at::Tensor& k, const at::Tensor& lse_BHT,
                                const at::Tensor& phi_q, const at::Tensor& phi_k) {
  return WeightsLossFunction::apply(q, k, lse_BHT, phi_q, phi_k);
}

}  // namespace tandem
