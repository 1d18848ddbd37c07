#include "worker/agent/gpu_pool.h"

#include <algorithm>
#include <string>
#include <utility>

namespace tandem::agent {

GpuPool::GpuPool(std::vector<GpuId> gpus) {
  for (GpuId& id : gpus) gpus_.push_back({.id = std::move(id)});
}

Result<std::vector<GpuId>> GpuPool::Take(int64_t count) {
  const int64_t free = std::ranges::count_if(gpus_, &Gpu::is_free);
  if (free < count) {
    return ResourceExhausted("the job needs " + std::to_string(count) + " GPUs, one per rank; " +
                             std::to_string(free) + " of this worker's " +
                             std::to_string(gpus_.size()) + " are free");
  }
  std::vector<GpuId> taken;
  for (Gpu& gpu : gpus_) {
    if (!gpu.is_free || static_cast<int64_t>(taken.size()) == count) continue;
    gpu.is_free = false;
    taken.push_back(gpu.id);
  }
  return taken;
}

void GpuPool::Return(const std::vector<GpuId>& gpus) {
  for (const GpuId& id : gpus) {
    const auto gpu = std::ranges::find(gpus_, id, &Gpu::id);
    TANDEM_CHECK_MSG(gpu != gpus_.end() && !gpu->is_free, "GPU " + id + " was not taken");
    gpu->is_free = true;
  }
}

}  // namespace tandem::agent
