// Full causal softmax by blocks of rows: the teacher and retained heads, where no fused kernel
// runs.
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "worker/model/attention/general.h"
#include "worker/model/attention/row_blocks.h"

namespace tandem::attention {
namespace {

// y of a block of rows from its queries (N,G,R,d) and the keys and values (N,J,d) up to its end.
at::Tensor BlockOutput(const RowBlock& block, const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v, at::Tensor* lse_NGR) {
  const at::Tensor scores = CausalScores(block, q, k);
  if (lse_NGR != nullptr) *lse_NGR = at::logsumexp(scores, -1);
  return at::bmm(at::softmax(scores, -1).flatten(1, 2), v).view_as(q);
}

// lse is filled where defined.
at::Tensor RunBlocks(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& lse_BHT) {
  const at::NoGradGuard no_gradients;
  const int64_t B = q.size(0), H = q.size(1), T = q.size(2), d = q.size(3);
  const at::Tensor out = at::empty({B, T, H, d}, q.options()).transpose(1, 2);
  ForRowBlocks(q, k, [&](const RowBlock& block) {
    at::Tensor lse;
    const at::Tensor y = BlockOutput(block, block.Rows(q), block.Keys(k), block.Keys(v),
                                     lse_BHT.defined() ? &lse : nullptr);
    block.CopyRows(y, out);
    if (lse_BHT.defined()) block.CopyRows(lse.unsqueeze(-1), lse_BHT.unsqueeze(-1));
  });
  return out;
}

class SoftmaxFunction : public torch::autograd::Function<SoftmaxFunction> {
 public:
  using Context = torch::autograd::AutogradContext;
  using List = torch::autograd::variable_list;

  static at::Tensor forward(Context* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v) {
    ctx->save_for_backward({q, k, v});
    return RunBlocks(q, k, v, {});
  }

  static List backward(Context* ctx, const List& grad_outputs) {
    const List saved = ctx->get_saved_variables();
    const at::Tensor q = saved[0].detach(), k = saved[1].detach(), v = saved[2].detach();
    const at::Tensor d_q = at::empty(q.sizes(), q.options()),
                     d_k = at::zeros(k.sizes(), k.options()),
                     d_v = at::zeros(v.sizes(), v.options());
    ForRowBlocks(q, k, [&](const RowBlock& block) {
      const at::AutoGradMode gradients_on(true);
      const at::Tensor rows = block.Rows(q).detach().set_requires_grad(true),
                       keys = block.Keys(k).detach().set_requires_grad(true),
                       values = block.Keys(v).detach().set_requires_grad(true);
      const at::Tensor y = BlockOutput(block, rows, keys, values, nullptr);
      const List g =
          torch::autograd::grad({y}, {rows, keys, values}, {block.Rows(grad_outputs[0])});
      const at::NoGradGuard no_gradients;
      block.CopyRows(g[0], d_q);
      block.AddKeys(g[1], d_k);
      block.AddKeys(g[2], d_v);
    });
    return {d_q, d_k, d_v};
  }
};

}  // namespace

at::Tensor GeneralSoftmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  CheckGeneralHeads(q, k, v);
  return SoftmaxFunction::apply(q, k, v);
}

SoftmaxResult GeneralTeacher(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  CheckGeneralHeads(q, k, v);
  SoftmaxResult result;
  result.lse_BHT = at::empty({q.size(0), q.size(1), q.size(2)}, q.options());
  result.out_BHTd = RunBlocks(q, k, v, result.lse_BHT);
  return result;
}

}  // namespace tandem::attention
