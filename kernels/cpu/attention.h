// The CPU attention kernels: hybrid attention forward and backward, the teacher's softmax, the
// streamed weights loss.
//
// Torch-free: plain pointers, sizes and strides. Each function does one task, a (sequence, query
// head) pair, so the caller chooses the threads; all arithmetic of a task is sequential, hence
// bitwise reproducible. The code is compiled once per instruction set and chosen at run time
// (Kernels<T>()). Specification: kernels/reference and method.md.
//
// Layout inside (why it is fast): tiles of 64 tokens lie feature-major, [feature][64 token lanes].
// Softmax over features or keys then never reduces across a vector, and every product is one
// register-blocked loop. Legend: B batch, H query heads, K key/value heads, T tokens, d head dim, f
// map width, F = 2f, bh = b * H + h. Preconditions (checked by the caller): d, f multiples of 8, K
// divides H, T >= 1, pointers to rows with contiguous last dimension. Scratch is 64-byte aligned,
// its size in elements comes from the *ScratchSize functions; it need not be initialised. Functions
// do not allocate, throw or fail.
#pragma once

#include <cstdint>

namespace tandem {

// Rows of d (or F) contiguous elements, addressed by batch, head and token; strides in elements.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t batch = 0, head = 0, token = 0;
};

struct AttentionSizes {
  int64_t batch = 1, heads = 1, kv_heads = 1, tokens = 1, dim = 8, map_dim = 8;
};

// One description for all component modes (method.md §3):
// hybrid: window >= 1, linear. linear_only: window 0, sinks 0, epsilon 1e-12. window_only: linear
// false. sinks_only: window 0, sinks n, linear false.
template <class T>
struct HybridProblem {
  AttentionSizes sizes;
  int64_t window = 64, sinks = 0;
  bool span_all = false, linear = true, detach_max = false;
  T epsilon = 0;               // added to the denominator
  Rows<const T> q, k, v;       // q, k unused where neither a softmax set nor a map reads them
  Rows<const T> v_linear;      // optional: other values for the linear branch; forward only
  Rows<const T> phi_q, phi_k;  // features (B,H,T,F), or null and
  const T* w_q = nullptr;      // maps (H,d,f), contiguous
  const T* w_k = nullptr;
  const T* gamma = nullptr;  // (H); unused without a softmax set
};

template <class T>
struct HybridOutputs {
  Rows<T> out;               // (B,H,T,d), overwritten
  T* linear_mass = nullptr;  // optional (B,H,T): Z / D
};

// Null members are not computed. Everything is overwritten; sums over heads of a group or over the
// batch are the caller's.
template <class T>
struct HybridGradients {
  Rows<const T> out, grad_out;  // the forward's result and its gradient
  Rows<T> d_q;                  // (B,H,T,d)
  Rows<T> d_k, d_v;             // (B,H,T,d): per query head
  Rows<T> d_phi_q, d_phi_k;     // (B,H,T,F), only when features were given
  T* d_w_q = nullptr;           // (B,H,d,f), only when maps were given
  T* d_w_k = nullptr;
  T* d_gamma = nullptr;  // (B,H)
};

// The step of attention transfer by outputs: forward, squared error against the teacher, gradients
// of maps and gamma.
template <class T>
struct TransferOutputs {
  Rows<const T> teacher;            // (B,H,T,d)
  T grad_factor = 0;                // dL/dy = grad_factor * (y - y*)
  double* squared_error = nullptr;  // (B,H): sum (y - y*)^2
  T* d_w_q = nullptr;               // (B,H,d,f)
  T* d_w_k = nullptr;
  T* d_gamma = nullptr;  // (B,H)
};

template <class T>
struct SoftmaxProblem {
  AttentionSizes sizes;
  Rows<const T> q, k, v;
  Rows<T> out;       // (B,H,T,d)
  T* lse = nullptr;  // (B,H,T)
};

template <class T>
struct WeightsProblem {
  AttentionSizes sizes;
  Rows<const T> q, k, phi_q, phi_k;  // features, or null and
  const T* w_q = nullptr;            // maps (H,d,f)
  const T* w_k = nullptr;
  const T* lse = nullptr;    // (B,H,T)
  T grad_factor = 0;         // gradients are of grad_factor * (sum of row losses)
  double* loss = nullptr;    // (B,H): sum over rows
  Rows<T> d_phi_q, d_phi_k;  // (B,H,T,F), when features were given; null: loss only
  T* d_w_q = nullptr;        // (B,H,d,f), when maps were given
  T* d_w_k = nullptr;
};

// phi = map(x) and its backward. x (B,K,T,d); phi, d_phi (B,H,T,F).
template <class T>
struct MapProblem {
  AttentionSizes sizes;  // kv_heads = heads of x
  Rows<const T> x;
  const T* w = nullptr;  // (H,d,f)
  Rows<T> phi;           // forward
  Rows<const T> d_phi;   // backward
  Rows<T> d_x;           // (B,H,T,d), per query head; optional
  T* d_w = nullptr;      // (B,H,d,f); optional
};

template <class T>
struct AttentionKernels {
  const char* instruction_set;
  int64_t (*hybrid_scratch)(const HybridProblem<T>&, bool backward);
  void (*hybrid_forward)(const HybridProblem<T>&, const HybridOutputs<T>&, int64_t bh, T* scratch);
  void (*hybrid_backward)(const HybridProblem<T>&, const HybridGradients<T>&, int64_t bh,
                          T* scratch);
  void (*hybrid_transfer)(const HybridProblem<T>&, const TransferOutputs<T>&, int64_t bh,
                          T* scratch);
  int64_t (*softmax_scratch)(const AttentionSizes&);
  void (*softmax)(const SoftmaxProblem<T>&, int64_t bh, T* scratch);
  int64_t (*weights_scratch)(const AttentionSizes&);
  void (*weights)(const WeightsProblem<T>&, int64_t bh, T* scratch);
  int64_t (*map_scratch)(const AttentionSizes&);
  void (*map_forward)(const MapProblem<T>&, int64_t bh, T* scratch);
  void (*map_backward)(const MapProblem<T>&, int64_t bh, T* scratch);
};

// The kernels for this machine. T is float or double.
template <class T>
const AttentionKernels<T>& Kernels();

}  // namespace tandem
