// The start of LoRA: A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0 (method.md §6.2).
//
// Drawn by Philox from the job's seed alone: every rank, and every attempt, starts alike.
#pragma once

#include <cstdint>

#include "worker/model/parameters.h"

namespace tandem {

void DrawLoraStart(uint64_t seed, const Parameters& parameters);

}  // namespace tandem
