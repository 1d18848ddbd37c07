// Passkey recall by distance, teacher-forced: a prompt counts when every token of its answer is the
// argmax of the logits one position before. Collective like evaluate.h, of which it is a part.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "worker/evaluate/evaluate.h"
#include "worker/model/evaluation_forward.h"

namespace tandem {

// Prompts in fixed groups of this many, so that results do not depend on the ranks.
inline constexpr int64_t kPasskeyGroup = 4;

// Modes softmax, hybrid, window_only and linear_only. `options` holds window, span and sinks.
// advance is called after each group and mode.
std::vector<PasskeyFigures> MeasurePasskey(const EvaluationInputs& inputs,
                                           const EvaluationOptions& options, Collective& collective,
                                           const std::function<void()>& advance);

// [first, last) of `count` groups for one rank: contiguous, in order of rank.
struct GroupRange {
  int64_t first = 0, last = 0;
};
GroupRange GroupsOfRank(int64_t count, int64_t rank, int64_t ranks);

}  // namespace tandem
