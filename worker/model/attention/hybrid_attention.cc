// The trainable operators: hybrid and linear attention, features given or mapped inside, with the
// kernels' backward.
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "worker/model/attention/kernel_call.h"

namespace tandem {
namespace {

using attention::HybridInputs;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kLinearEpsilon = 1e-12;  // method.md §3, linear_only

// What is not a tensor of a call.
struct Mode {
  HybridOptions options;
  bool softmax = true;
  bool maps = false;  // a_q, a_k are maps (H,d,f) rather than features (B,H,T,F)
  bool linear = true;
};

HybridInputs Collect(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& a_q, const at::Tensor& a_k, const at::Tensor& gamma,
                     const Mode& mode) {
  HybridInputs in;
  in.options = mode.options;
  in.softmax = mode.softmax;
  in.linear = mode.linear;
  in.epsilon = mode.softmax ? 0 : kLinearEpsilon;
  const bool reads_queries = mode.softmax || mode.maps;
  if (reads_queries) {
    in.sizes = attention::CheckHeads(q, k, v);
  } else {
    attention::CheckTensor("v", v, v, {-1, -1, -1, -1});
    in.sizes = {v.size(0), a_q.size(1), v.size(1), v.size(2), v.size(3), 8};
  }
  AttentionSizes& s = in.sizes;
  if (!mode.linear) {
    attention::CheckOptions(mode.options);
  } else if (mode.maps) {
    attention::CheckTensor("w_q", a_q, v, {s.heads, s.dim, -1});
    attention::CheckTensor("w_k", a_k, v, a_q.sizes());
    s.map_dim = a_q.size(2);
    in.w_q = a_q.contiguous();
    in.w_k = a_k.contiguous();
  } else {
    attention::CheckTensor("phi_q", a_q, v, {s.batch, s.heads, s.tokens, -1});
    attention::CheckTensor("phi_k", a_k, v, a_q.sizes());
    TORCH_CHECK(a_q.size(3) % 2 == 0, "phi_q has ", a_q.size(3), " features; must be even");
    s.map_dim = a_q.size(3) / 2;
    in.phi_q = attention::Readable(a_q);
    in.phi_k = attention::Readable(a_k);
  }
  attention::CheckDims(s);
  if (mode.softmax && mode.linear) {
    attention::CheckOptions(mode.options);
    attention::CheckTensor("gamma", gamma, v, {s.heads});
    in.gamma = gamma.contiguous();
  }
  if (reads_queries) {
    in.q = attention::Readable(q);
    in.k = attention::Readable(k);
  }
  in.v = attention::Readable(v);
  return in;
}

// Gradients as the kernels leave them, null where not asked for.
struct Partials {
  at::Tensor d_q, d_k, d_v, d_a_q, d_a_k, d_gamma;
};

Partials Allocate(const HybridInputs& in, const AutogradContext& ctx) {
  const AttentionSizes& s = in.sizes;
  const auto heads = [&](int64_t width) {
    return attention::EmptyHeads(in.v, s.batch, s.heads, s.tokens, width);
  };
  const bool maps = in.w_q.defined();
  const auto features = [&] {
    return maps ? at::empty({s.batch, s.heads, s.dim, s.map_dim}, in.v.options())
                : heads(2 * s.map_dim);
  };
  Partials g;
  if (in.q.defined() && ctx.needs_input_grad(0)) g.d_q = heads(s.dim);
  if (in.k.defined() && ctx.needs_input_grad(1)) g.d_k = heads(s.dim);
  if (ctx.needs_input_grad(2)) g.d_v = heads(s.dim);
  if (!in.linear) return g;
  if (ctx.needs_input_grad(3)) g.d_a_q = features();
  if (ctx.needs_input_grad(4)) g.d_a_k = features();
  if (in.gamma.defined() && ctx.needs_input_grad(5))
    g.d_gamma = at::empty({s.batch, s.heads}, in.v.options());
  return g;
}

void RunBackward(const HybridInputs& in, const at::Tensor& out, const at::Tensor& grad_out,
                 const Partials& to) {
  attention::ForType(in.v, [&](auto zero) {
    using T = decltype(zero);
    const HybridProblem<T> p = attention::Describe<T>(in);
    HybridGradients<T> g;
    g.out = attention::RowsOf<const T>(out);
    g.grad_out = attention::RowsOf<const T>(grad_out);
    g.d_q = attention::RowsOf<T>(to.d_q);
    g.d_k = attention::RowsOf<T>(to.d_k);
    g.d_v = attention::RowsOf<T>(to.d_v);
    if (in.w_q.defined()) {
      g.d_w_q = attention::MutableDataOf<T>(to.d_a_q);
      g.d_w_k = attention::MutableDataOf<T>(to.d_a_k);
    } else {
      g.d_phi_q = attention::RowsOf<T>(to.d_a_q);
      g.d_phi_k = attention::RowsOf<T>(to.d_a_k);
    }
    g.d_gamma = attention::MutableDataOf<T>(to.d_gamma);
    const AttentionKernels<T>& kernels = Kernels<T>();
    attention::ForEachHead<T>(
        in.sizes, kernels.hybrid_scratch(p, true),
        [&](int64_t bh, T* scratch) { kernels.hybrid_backward(p, g, bh, scratch); });
  });
}

class HybridFunction : public torch::autograd::Function<HybridFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& a_q, const at::Tensor& a_k,
                            const at::Tensor& gamma, const Mode& mode) {
    const HybridInputs in = Collect(q, k, v, a_q, a_k, gamma, mode);
    at::Tensor out = attention::RunForward(in, {});
    ctx->save_for_backward({q, k, v, a_q, a_k, gamma, out});
    ctx->saved_data["window"] = mode.options.window;
    ctx->saved_data["sinks"] = mode.options.sinks;
    ctx->saved_data["span_all"] = mode.options.span == Span::kAll;
    ctx->saved_data["detach_max"] = mode.options.detach_max;
    ctx->saved_data["softmax"] = mode.softmax;
    ctx->saved_data["maps"] = mode.maps;
    ctx->saved_data["linear"] = mode.linear;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grad_outputs) {
    const variable_list saved = ctx->get_saved_variables();
    Mode mode;
    mode.options = {ctx->saved_data["window"].toInt(), ctx->saved_data["sinks"].toInt(),
                    ctx->saved_data["span_all"].toBool() ? Span::kAll : Span::kOutside,
                    ctx->saved_data["detach_max"].toBool()};
    mode.softmax = ctx->saved_data["softmax"].toBool();
    mode.maps = ctx->saved_data["maps"].toBool();
    mode.linear = ctx->saved_data["linear"].toBool();
    const HybridInputs in =
        Collect(saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], mode);
    const Partials g = Allocate(in, *ctx);
    RunBackward(in, saved[6], attention::Readable(grad_outputs[0]), g);
    const int64_t kv_heads = in.sizes.kv_heads;
    const bool maps = mode.maps;
    return {g.d_q,
            attention::SumGroups(g.d_k, kv_heads),
            attention::SumGroups(g.d_v, kv_heads),
            maps ? attention::SumBatch(g.d_a_q) : g.d_a_q,
            maps ? attention::SumBatch(g.d_a_k) : g.d_a_k,
            attention::SumBatch(g.d_gamma),
            at::Tensor()};
  }
};

// Autograd takes no undefined arguments: they are refused here, and what a mode does not read is
// filled with v.
at::Tensor Apply(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const at::Tensor& a_q, const at::Tensor& a_k, const at::Tensor& gamma,
                 const Mode& mode) {
  const std::pair<const char*, const at::Tensor*> arguments[] = {
      {"q", &q},
      {"k", &k},
      {"v", &v},
      {mode.maps ? "w_q" : "phi_q", &a_q},
      {mode.maps ? "w_k" : "phi_k", &a_k},
      {"gamma", &gamma}};
  for (const auto& [name, tensor] : arguments)
    TORCH_CHECK(tensor->defined(), name, " is undefined; pass a tensor");
  return HybridFunction::apply(q, k, v, a_q, a_k, gamma, mode);
}

}  // namespace

at::Tensor HybridAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& phi_q, const at::Tensor& phi_k,
                           const at::Tensor& gamma_H, const HybridOptions& options) {
  return Apply(q, k, v, phi_q, phi_k, gamma_H, Mode{options, true, false});
}

at::Tensor HybridAttentionWithMaps(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& w_q, const at::Tensor& w_k,
                                   const at::Tensor& gamma_H, const HybridOptions& options) {
  return Apply(q, k, v, w_q, w_k, gamma_H, Mode{options, true, true});
}

at::Tensor LinearAttention(const at::Tensor& phi_q, const at::Tensor& phi_k, const at::Tensor& v) {
  const at::Tensor unread = v.detach();
  return Apply(unread, unread, v, phi_q, phi_k, unread, Mode{{}, false, false});
}

at::Tensor LinearAttentionWithMaps(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& w_q, const at::Tensor& w_k) {
  return Apply(q, k, v, w_q, w_k, v.detach(), Mode{{}, false, true});
}

at::Tensor WindowAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t window, int64_t sinks) {
  const at::Tensor unread = v.detach();
  return Apply(q, k, v, unread, unread, unread,
               Mode{{window, sinks, Span::kOutside, false}, true, false, false});
}

}  // namespace tandem
