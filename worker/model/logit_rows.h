// How many rows of logits exist at a time: a row is V floats, so all rows of a batch never do.
// Torch-free: the loss (next_token_loss.h) makes them, the cost model counts them.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tandem {

// On the CPU: what stays in cache.
inline constexpr int64_t kLossChunkRows = 256;

// Of a vocabulary of V tokens: on a GPU as many as fill it within 256 MB.
inline int64_t LogitRows(bool is_cpu, int64_t V) {
  constexpr int64_t kDeviceFloats = int64_t{1} << 26;
  return is_cpu ? kLossChunkRows : std::clamp<int64_t>(kDeviceFloats / V, kLossChunkRows, 8192);
}

}  // namespace tandem
