// The fused CPU operators: the Hedgehog feature map, the hybrid of sliding softmax window and
// linear attention, its component modes, the teacher's softmax, and the per-layer steps of
// attention transfer. Model code calls form.h, which knows every form and device and picks these
// where they fit.
//
// The arithmetic lies in kernels/cpu (torch-free, chunked), the specification in kernels/reference
// and method.md. Every function takes O(T) memory: no T x T tensor is made anywhere. Time is O(T),
// but for CausalSoftmax and the weights loss, which are O(T^2).
//
// Threads: functions are free of state; call them from one training thread, they use ATen's
// intra-op pool (one task per sequence and query head). Results are bitwise the same for any number
// of threads. Failure: wrong shapes, types or options throw c10::Error (TORCH_CHECK) naming the
// argument, its value and what is allowed. Not for decoding token by token: these functions read
// whole sequences.
//
// Shapes: B sequences, T tokens, H query heads, K key/value heads (K divides H, head h reads h /
// (H/K)), d head dimension, f map width, F = 2f features. q (B,H,T,d); k, v (B,K,T,d), after RoPE;
// w_q, w_k (H,d,f); gamma (H). float32 or float64, all alike, on the CPU. d and f are multiples
// of 8. The last dimension should be contiguous; other strides are free, so views of a projection's
// output are read in place. Results of shape (B,H,T,d) lie in memory as (B,T,H,d): .transpose(1,
// 2).flatten(2) of them is a view.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tandem {

// The keys of the linear branch: those outside the window, or all causal keys (method.md §3).
enum class Span { kOutside, kAll };

struct HybridOptions {
  int64_t window = 64;  // softmax keys per query, its own included; >= 1
  int64_t sinks = 0;    // first tokens that always belong to the softmax set; >= 0
  Span span = Span::kOutside;
  bool detach_max =
      false;  // no gradient through the row maximum: parity only, a wrong gradient (method.md §3)
};

// phi(x) = max([softmax(xW), softmax(-xW)], 1e-12) per query head (method.md §2). x is (B,H,T,d) or
// (B,K,T,d): head h reads x's head h / (H / heads of x), nothing is repeated. Returns (B,H,T,2f).
// Autograd for x and w.
at::Tensor HedgehogFeatureMap(const at::Tensor& x, const at::Tensor& w_Hdf);

// The hybrid (method.md §3, §5) for training: (B,H,T,d), with its own backward for q, k, v, phi_q,
// phi_k and gamma, each as required. phi_q, phi_k (B,H,T,F).
at::Tensor HybridAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const at::Tensor& phi_q, const at::Tensor& phi_k,
                           const at::Tensor& gamma_H, const HybridOptions& options);

// The same with the maps inside: faster, and no features are kept for backward. Gradients for q, k,
// v, w_q, w_k, gamma.
at::Tensor HybridAttentionWithMaps(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& w_q, const at::Tensor& w_k,
                                   const at::Tensor& gamma_H, const HybridOptions& options);

// Mode linear_only: all causal keys with self, denominator Z + 1e-12, whatever the span. Own
// backward.
at::Tensor LinearAttention(const at::Tensor& phi_q, const at::Tensor& phi_k, const at::Tensor& v);
at::Tensor LinearAttentionWithMaps(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const at::Tensor& w_q, const at::Tensor& w_k);

// Mode window_only, with its own backward: softmax over {i-w < j <= i} and {j <= i, j < sinks}.
at::Tensor WindowAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           int64_t window, int64_t sinks);
// Mode sinks_only, forward only: softmax over {j <= i, j < num_sinks}.
at::Tensor SinksAttention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          int64_t num_sinks);

// The teacher: full causal softmax with its log-sum-exp (natural logarithm of the sum of exp(q.k /
// sqrt(d))). Forward only; on any device.
struct SoftmaxResult {
  at::Tensor out_BHTd, lse_BHT;
};
SoftmaxResult CausalSoftmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

// The hybrid for evaluation, no autograd: also the share Z_i / D_i of the linear branch. phi_k and
// v_linear may belong to another sequence (probe state_swap): the window reads k and v, the linear
// branch phi_k and v_linear.
struct HybridDiagnostics {
  at::Tensor out_BHTd, linear_mass_BHT;
};
HybridDiagnostics HybridForward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const at::Tensor& phi_q, const at::Tensor& phi_k,
                                const at::Tensor& v_linear, const at::Tensor& gamma_H,
                                const HybridOptions& options);

// Stage-1 objective `weights`, streamed (method.md §6.1): the mean over B, H, T of
// -sum_{j<=i} p*_ij ln(x_ij + 1e-12) + ln Z_i. A scalar; autograd to phi_q and phi_k.
at::Tensor AttentionWeightsLoss(const at::Tensor& q, const at::Tensor& k, const at::Tensor& lse_BHT,
                                const at::Tensor& phi_q, const at::Tensor& phi_k);

// One layer of attention transfer: loss, and grad_scale times its gradients, in one pass without
// autograd. d_w_q, d_w_k (H,d,f). d_theta (H) for gamma = sigmoid(theta); undefined from
// TransferWeights, which does not use it. d_b_q, d_b_k: of maps with a bias (form.h), else
// undefined.
struct TransferResult {
  double loss = 0;
  at::Tensor d_w_q, d_w_k, d_theta, d_b_q, d_b_k;
};
// Objective `hybrid_outputs`: loss_scale * mean (y - y*)^2 over B, H, T, d; the design's loss_scale
// is 1000.
TransferResult TransferHybridOutputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     const at::Tensor& out_teacher, const at::Tensor& w_q,
                                     const at::Tensor& w_k, const at::Tensor& theta_H,
                                     const HybridOptions& options, double loss_scale,
                                     double grad_scale);
// Objective `weights`: the loss of AttentionWeightsLoss.
TransferResult TransferWeights(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& lse_BHT, const at::Tensor& w_q,
                               const at::Tensor& w_k, double grad_scale);

}  // namespace tandem
