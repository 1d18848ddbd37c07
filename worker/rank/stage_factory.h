// From the plan's words to options and objects. The only place that knows both.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "worker/comm/collective.h"
#include "worker/model/attention/form.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"
#include "worker/train/stage.h"

namespace tandem {

// What a single rank cannot know from the plan alone: ranks, batches, LoRA of several stages. All
// violations at once.
Status CheckPlanForRanks(const Plan& plan, int64_t num_ranks);

// The form that stages train and early stop watches: gain, mixing by mass and the sparse cache
// count in use alone.
AttentionForm TrainedFormOf(const AttentionPlan& attention);

// LoRA is that of the finetune stages, which must agree; none without such a stage.
ParameterOptions ParameterOptionsOf(const Plan& plan);
// Reads validation text where the stage stops early; leaves by an exception without it (failure.h).
std::unique_ptr<TrainingStage> MakeStage(const Plan& plan, int64_t stage_index, const Llama& model,
                                         const Parameters& parameters, Collective& collective);

}  // namespace tandem
