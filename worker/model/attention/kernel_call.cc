#include "worker/model/attention/kernel_call.h"

#include <ATen/ops/sum.h>

#include <cstdlib>
#include <memory>
#include <new>

namespace tandem::attention {
namespace {

struct Free {
  void operator()(void* p) const { std::free(p); }
};

constexpr int64_t kCacheLine = 64;

}  // namespace

void* ThreadScratch(int64_t bytes) {
  thread_local std::unique_ptr<void, Free> block;
  thread_local int64_t block_bytes = 0;
  if (bytes > block_bytes) {
    const int64_t rounded = (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
    block.reset();
    block_bytes = 0;
    block.reset(std::aligned_alloc(kCacheLine, static_cast<size_t>(rounded)));
    if (block == nullptr) throw std::bad_alloc();
    block_bytes = rounded;
  }
  return block.get();
}

at::Tensor Readable(const at::Tensor& x) {
  if (!x.defined() || x.size(-1) == 1 || x.stride(-1) == 1) return x;
  return x.contiguous();
}

at::Tensor EmptyHeads(const at::Tensor& like, int64_t batch, int64_t heads, int64_t tokens,
                      int64_t dim) {
  return at::empty({batch, tokens, heads, dim}, like.options()).transpose(1, 2);
}

at::Tensor SumGroups(const at::Tensor& per_head, int64_t kv_heads) {
  if (!per_head.defined() || per_head.size(1) == kv_heads) return per_head;
  return per_head.transpose(1, 2)
      .unflatten(2, {kv_heads, per_head.size(1) / kv_heads})
      .sum(3)
      .transpose(1, 2);
}

at::Tensor SumBatch(const at::Tensor& partial) {
  if (!partial.defined()) return partial;
  return partial.size(0) == 1 ? partial.squeeze(0) : partial.sum(0);
}

void CheckTensor(const char* name, const at::Tensor& x, const at::Tensor& like,
                 at::IntArrayRef sizes) {
  TORCH_CHECK(x.defined(), name, " is undefined; pass a tensor");
  TORCH_CHECK(x.device().is_cpu(), name, " is on ", x.device(), "; attention runs on cpu");
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, name, " is ",
              x.scalar_type(), "; must be float32 or float64");
  TORCH_CHECK(x.scalar_type() == like.scalar_type(), name, " is ", x.scalar_type(),
              "; must be of the other arguments' type, ", like.scalar_type());
  bool same = x.dim() == static_cast<int64_t>(sizes.size());
  for (size_t i = 0; same && i < sizes.size(); ++i)
    same = sizes[i] < 0 || x.size(static_cast<int64_t>(i)) == sizes[i];
  TORCH_CHECK(same, name, " has shape ", x.sizes(), "; must be ", sizes, " (-1: any)");
}

void CheckDims(const AttentionSizes& sizes) {
  TORCH_CHECK(sizes.tokens >= 1, "a sequence has ", sizes.tokens, " tokens; must be at least 1");
  TORCH_CHECK(sizes.kv_heads >= 1 && sizes.heads % sizes.kv_heads == 0, "k has ", sizes.kv_heads,
              " heads; must divide the ", sizes.heads, " query heads");
  TORCH_CHECK(sizes.dim >= 8 && sizes.dim % 8 == 0, "the head dimension is ", sizes.dim,
              "; must be a multiple of 8");
  TORCH_CHECK(sizes.map_dim >= 8 && sizes.map_dim % 8 == 0, "the feature map's width is ",
              sizes.map_dim, "; must be a multiple of 8");
}

AttentionSizes CheckHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  CheckTensor("q", q, q, {-1, -1, -1, -1});
  CheckTensor("k", k, q, {q.size(0), -1, q.size(2), q.size(3)});
  CheckTensor("v", v, q, k.sizes());
  AttentionSizes sizes{q.size(0), q.size(1), k.size(1), q.size(2), q.size(3), 8};
  CheckDims(sizes);
  return sizes;
}

void CheckOptions(const HybridOptions& options) {
  TORCH_CHECK(options.window >= 1, "window is ", options.window, "; must be at least 1");
  TORCH_CHECK(options.sinks >= 0, "sinks is ", options.sinks, "; must be at least 0");
}

at::Tensor RunForward(const HybridInputs& in, const at::Tensor& linear_mass) {
  const AttentionSizes& s = in.sizes;
  at::Tensor out = EmptyHeads(in.v, s.batch, s.heads, s.tokens, s.dim);
  ForType(in.v, [&](auto zero) {
    using T = decltype(zero);
    const HybridProblem<T> p = Describe<T>(in);
    const HybridOutputs<T> to{RowsOf<T>(out), MutableDataOf<T>(linear_mass)};
    const AttentionKernels<T>& kernels = Kernels<T>();
    ForEachHead<T>(s, kernels.hybrid_scratch(p, false),
                   [&](int64_t bh, T* scratch) { kernels.hybrid_forward(p, to, bh, scratch); });
  });
  return out;
}

}  // namespace tandem::attention
