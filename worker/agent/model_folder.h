// ModelFolder: what an agent reads of a model's config.json before the ranks do: sizes that the
// spec leaves open, and the form of a conversion that recipe diagnose measures.
//
// Immutable once read. Knows no torch: the ranks read the same file again, strictly.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/plan/plan.h"

namespace tandem::agent {

struct ModelFolder {
  int64_t head_dim = 0;
  int64_t num_layers = 0;
  int64_t num_kv_heads = 0;
  bool is_converted = false;  // model_type hybrid_linear
  // Of a converted model.
  AttentionPlan attention;
  std::string served_mode = "hybrid";
};

// kInvalidArgument where sizes are missing or the conversion's keys are not understood.
Result<ModelFolder> ReadModelFolder(const std::string& folder);

// attention.retain.kv_groups -> groups of this model, ascending, each once.
Result<std::vector<RetainedGroup>> RetainedGroupsOf(const std::vector<std::string>& texts,
                                                    const ModelFolder& model);

}  // namespace tandem::agent
