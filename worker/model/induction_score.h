// Which heads look things up? A score without labels (method.md §3, retained heads).
//
// On random tokens repeated twice, an induction head attends from a token of the second copy to the
// successor of the same token in the first. A head's score is the mean of that attention weight
// over the rows of the second copy that have such a successor, a KV group's the largest of its
// query heads: one such head is enough to keep the group. Memory is O(T) per head: only the needed
// weight of every row is computed, from the teacher's log-sum-exp. Runs the base in mode softmax,
// on its device, without autograd. Wrong shapes throw c10::Error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "worker/model/llama.h"

namespace tandem {

// By layer and KV group, in [0, 1].
using InductionScoreTable = std::vector<std::vector<double>>;

// ids_Bn: int64, n >= 2 random tokens per sequence; each is read twice, so 2n must fit the model.
InductionScoreTable InductionScores(const Llama& model, const at::Tensor& ids_Bn);

// The `count` best (layer, group), ascending by layer and group; of equal scores the earlier.
std::vector<std::pair<int64_t, int64_t>> BestGroups(const InductionScoreTable& scores,
                                                    int64_t count);

}  // namespace tandem
