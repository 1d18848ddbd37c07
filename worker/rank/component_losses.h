// The loss of each component on a few validation sequences, between steps of a stage.
//
// The same sequences each time, evenly spread over the validation chunks, in groups that do not
// depend on the number of ranks: neither do the losses, which all ranks get alike. A collective
// call. Training thread only.
#pragma once

#include <cstdint>

#include "worker/comm/collective.h"
#include "worker/data/token_shards.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"
#include "worker/rank/early_stop.h"

namespace tandem {

// Of `sequences` validation sequences, or of all where there are fewer; at least one must exist.
ComponentLosses MeasureComponents(const Plan& plan, const Llama& model,
                                  const Parameters& parameters, const TokenShard& validation,
                                  int64_t sequences, Collective& collective);

}  // namespace tandem
