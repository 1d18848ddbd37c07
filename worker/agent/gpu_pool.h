// GpuPool: which of this worker's GPUs are free.
//
// A slot that computes on a GPU has one of its own from its attempt's begin until no process of the
// attempt lives. The coordinator counts GPUs as it counts slots; this is where they get names.
// Confined to the loop's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/gpus.h"
#include "base/status.h"

namespace tandem::agent {

class GpuPool {
 public:
  // The worker's, in the order in which they are given away.
  explicit GpuPool(std::vector<GpuId> gpus);

  // The first `count` that are free; kResourceExhausted if fewer are: then none is taken.
  Result<std::vector<GpuId>> Take(int64_t count);
  // What Take gave.
  void Return(const std::vector<GpuId>& gpus);

 private:
  struct Gpu {
    GpuId id;
    bool is_free = true;
  };
  std::vector<Gpu> gpus_;
};

}  // namespace tandem::agent
