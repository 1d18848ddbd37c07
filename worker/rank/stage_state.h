// The tensors of a training stage by name, and the parts of them that outlive it. A checkpoint
// holds the whole state. All share memory with the live tensors: restoring into one restores them.
#pragma once

#include "worker/checkpoint/checkpoint.h"
#include "worker/plan/plan.h"
#include "worker/rank/early_stop.h"
#include "worker/train/stage.h"

namespace tandem {

// Parameters, the optimiser's moments as "adam.*", early stop as "stop.*". stop may be null.
NamedTensors StateOf(const TrainingStage& stage, const EarlyStop* stop);
// What the next stage starts from: fresh moments come with it.
NamedTensors ParametersOf(const NamedTensors& state);
// What another job with the same stage can take over: the parameters and how it stopped early, no
// moments. Attention transfer leaves LoRA out, which it does not touch and which the jobs that
// share it may shape differently.
NamedTensors ResultOf(const StagePlan& stage, const NamedTensors& state);

}  // namespace tandem
