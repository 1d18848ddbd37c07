// From tensors to kernels: checks, strides, scratch and the loop over heads. Private to this
// folder.
//
// One scratch block per pool thread, grown to the largest call so far and kept: a training step
// allocates nothing here. Its size is O(T). Checks throw c10::Error with the argument's name.
// Thread-safe; confined to the calling thread but for the parallel loop.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#include "kernels/cpu/attention.h"
#include "worker/model/attention/attention.h"

// Without OpenMP, ATen's parallel_for runs on one thread and says nothing (cmake/Torch.cmake).
#ifndef INTRA_OP_PARALLEL
#error "compile with TANDEM_PARALLEL_OPTIONS"
#endif

namespace tandem::attention {

// At least `bytes` of 64-byte aligned memory of this thread, valid until its next call.
void* ThreadScratch(int64_t bytes);

// x as rows: a tensor whose last dimension is contiguous, copied only if it is not.
at::Tensor Readable(const at::Tensor& x);

// An uninitialised (B,H,T,d) like x that lies in memory as (B,T,H,d).
at::Tensor EmptyHeads(const at::Tensor& like, int64_t batch, int64_t heads, int64_t tokens,
                      int64_t dim);

// (B,H,T,d) summed over the H/K query heads of each group.
at::Tensor SumGroups(const at::Tensor& per_head, int64_t kv_heads);

// (B,H,...) partial sums of a batch to (H,...).
at::Tensor SumBatch(const at::Tensor& partial);

// Throws unless x is a defined CPU tensor of float32 or float64, of `like`'s type, with these sizes
// (-1: any).
void CheckTensor(const char* name, const at::Tensor& x, const at::Tensor& like,
                 at::IntArrayRef sizes);

// Checks q (B,H,T,d), k and v (B,K,T,d); returns the sizes with map_dim unset (8).
AttentionSizes CheckHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
// The parts of it: dimensions that the kernels take.
void CheckDims(const AttentionSizes& sizes);
void CheckOptions(const HybridOptions& options);

template <class T>
Rows<T> RowsOf(const at::Tensor& x) {
  if (!x.defined()) return {};
  using Element = std::remove_const_t<T>;
  return {const_cast<Element*>(x.const_data_ptr<Element>()), x.stride(0), x.stride(1), x.stride(2)};
}

template <class T>
const T* DataOf(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<T>() : nullptr;
}
template <class T>
T* MutableDataOf(const at::Tensor& x) {
  return x.defined() ? x.mutable_data_ptr<T>() : nullptr;
}

// Calls body(bh, scratch) for every sequence and query head on ATen's pool.
template <class T, class Body>
void ForEachHead(const AttentionSizes& sizes, int64_t scratch_elements, const Body& body) {
  at::parallel_for(0, sizes.batch * sizes.heads, 1, [&](int64_t begin, int64_t end) {
    T* scratch = static_cast<T*>(ThreadScratch(scratch_elements * static_cast<int64_t>(sizeof(T))));
    for (int64_t bh = begin; bh < end; ++bh) body(bh, scratch);
  });
}

// Calls body(T{}) with x's element type.
template <class Body>
void ForType(const at::Tensor& x, const Body& body) {
  if (x.scalar_type() == at::kFloat) {
    body(float{});
  } else {
    body(double{});
  }
}

// All that a hybrid in any component mode reads. Undefined tensors: not used in this mode.
struct HybridInputs {
  at::Tensor q, k, v, v_linear, phi_q, phi_k, w_q, w_k, gamma;
  AttentionSizes sizes;
  HybridOptions options;
  bool softmax = true, linear = true;
  double epsilon = 0;
};

template <class T>
HybridProblem<T> Describe(const HybridInputs& in) {
  HybridProblem<T> p;
  p.sizes = in.sizes;
  p.window = in.softmax ? in.options.window : 0;
  p.sinks = in.softmax ? in.options.sinks : 0;
  p.span_all = in.options.span == Span::kAll;
  p.linear = in.linear;
  p.detach_max = in.options.detach_max;
  p.epsilon = static_cast<T>(in.epsilon);
  p.q = RowsOf<const T>(in.q);
  p.k = RowsOf<const T>(in.k);
  p.v = RowsOf<const T>(in.v);
  p.v_linear = RowsOf<const T>(in.v_linear);
  p.phi_q = RowsOf<const T>(in.phi_q);
  p.phi_k = RowsOf<const T>(in.phi_k);
  p.w_q = DataOf<T>(in.w_q);
  p.w_k = DataOf<T>(in.w_k);
  p.gamma = DataOf<T>(in.gamma);
  return p;
}

// out (B,H,T,d) of a hybrid; fills linear_mass (B,H,T) where defined.
at::Tensor RunForward(const HybridInputs& in, const at::Tensor& linear_mass);

}  // namespace tandem::attention
