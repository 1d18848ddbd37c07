// Which tokens a rank reads for a step.
#pragma once

#include <cstdint>

#include "worker/comm/collective.h"
#include "worker/data/training_data.h"
#include "worker/plan/plan.h"
#include "worker/train/stage.h"

namespace tandem {

// This rank's sequences of a step, with labels and document starts where the plan and the data have
// them. A function of (seed, stage, step, rank) alone: nothing is remembered between steps.
StepBatch ReadStepBatch(const Plan& plan, int64_t stage_index, int64_t step,
                        const TrainingData& data, const Collective& collective);

}  // namespace tandem
