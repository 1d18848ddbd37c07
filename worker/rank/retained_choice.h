// attention.retain.auto: which KV groups stay softmax, chosen before training by the label-free
// induction score (worker/model/induction_score.h) on random tokens.
//
// The first rank computes and writes <job>/artifacts/retained.json; every rank, and every later
// attempt, takes what stands there, so that a resumed job keeps its heads. Training thread only.
#pragma once

#include <string>

#include "worker/comm/collective.h"
#include "worker/model/llama.h"
#include "worker/plan/plan.h"

namespace tandem {

// Fills plan.attention.retained; nothing to do where plan.attention.retain_auto is 0. A collective
// call. Returns the scores, [[per KV group] per layer], as JSON; empty without a choice.
std::string ChooseRetained(const Llama& model, Collective& collective, Plan& plan);

}  // namespace tandem
