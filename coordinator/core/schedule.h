// Schedule: which waiting job runs next, and where.
//
// Strict priority (larger first), then first come first served; a job that is queued again keeps
// its place. A gang gets all its slots on one worker, or none, and if it computes on GPUs one with
// each slot. The first job in line that could fit some worker but finds its slots taken blocks all
// behind it, so that a large job is not starved by small ones; jobs in backoff and jobs larger than
// every worker, or without any worker that has a GPU, block nobody. Among the workers with room the
// fullest is taken (best fit), then the first by name; a job on the CPU takes one with GPUs last.
#pragma once

#include "coordinator/core/turn.h"

namespace tandem::core {

// One pass: admits what fits, and tells every job that waits why. Visits the jobs up to the first
// that blocks, and those behind it whose reason changes: O(set aside + admitted · workers +
// changed).
void Schedule(Turn& turn);

}  // namespace tandem::core
