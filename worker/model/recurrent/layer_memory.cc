#include "worker/model/recurrent/layer_memory.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace tandem {
namespace {

constexpr int64_t kFirstCapacity = 64;

// `old` (B,R,capacity,d) with room for `needed` tokens; undefined: a new one like `rows`.
at::Tensor WithRoom(const at::Tensor& old, const at::Tensor& rows, int64_t filled, int64_t needed) {
  if (old.defined() && old.size(2) >= needed) return old;
  const int64_t capacity =
      std::max({needed, kFirstCapacity, old.defined() ? 2 * old.size(2) : int64_t{0}});
  const at::Tensor grown =
      at::empty({rows.size(0), rows.size(1), capacity, rows.size(3)}, rows.options());
  if (filled > 0) grown.narrow(2, 0, filled).copy_(old.narrow(2, 0, filled));
  return grown;
}

}  // namespace

int64_t LayerMemory::bytes() const {
  int64_t total = 0;
  for (const at::Tensor* tensor : {&k, &v, &sink_k, &sink_v, &S, &z, &z_all, &cached_k, &cached_v,
                                   &cached_score, &full_k, &full_v}) {
    if (tensor->defined()) total += static_cast<int64_t>(tensor->nbytes());
  }
  return total;
}

void AppendToFull(const at::Tensor& k, const at::Tensor& v, LayerMemory* memory) {
  const int64_t filled = memory->position, rows = k.size(2);
  memory->full_k = WithRoom(memory->full_k, k, filled, filled + rows);
  memory->full_v = WithRoom(memory->full_v, v, filled, filled + rows);
  memory->full_k.narrow(2, filled, rows).copy_(k);
  memory->full_v.narrow(2, filled, rows).copy_(v);
}

}  // namespace tandem
