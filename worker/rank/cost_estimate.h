// Cost estimate: steps, tokens, time and memory of every stage, said before the first step.
//
// time = tokens x useful operations per token (worker/evaluate/cost_model.h) / rate. The rate is
// measured, once per stage, by rehearsing the stage itself: a first step without its update, on a
// few tokens. A rate of bare matrix products would be simpler and promise too much: attention,
// norms, recomputation and the loss run at other speeds, in shares that differ by stage. The
// rehearsal starts with 64 tokens and grows fourfold until it takes 0.1 s, so it costs some tenths
// of a second, or what 64 tokens cost on a model so large that this is more; the slowest rank
// counts. What it cannot know: whatever else will run on the machine, heat, and that attention's
// share grows with the sequence beyond what was rehearsed (the operations of both lengths are in
// the formula, their speeds are not). Therefore the report shows each estimate beside what came of
// it.
//
// Collective: all ranks call it together. Training thread; leaves no trace in the parameters.
#pragma once

#include "base/clock.h"
#include "worker/comm/collective.h"
#include "worker/evaluate/estimate.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"

namespace tandem {

struct CostEstimateInputs {
  const Plan& plan;
  const Llama& model;
  const Parameters& parameters;
  double program_bytes = 0;  // resident before the model was loaded
};

// Writes estimate.json and logs a line per stage, unless an earlier attempt has.
void EstimateCost(const CostEstimateInputs& inputs, Collective& collective, const Clock& clock);

}  // namespace tandem
