// Plan builder: from the resolved job spec that the coordinator sends to what prepare and the ranks
// are told.
//
// Pure except for the model's config.json, whose head_dim fills attention.feature_map.dim where the
// spec leaves it 0.
#pragma once

#include <string>

#include "base/status.h"
#include "tandem/v1/spec.pb.h"
#include "worker/plan/plan.h"

namespace tandem::agent {

// What the spec does not say.
struct PlanContext {
  std::string job_uid;
  std::string job_name;
  int64_t epoch = 0;
  std::string job_folder;
  std::string attempt_folder;
  std::string socket;
  std::string tokens;       // prepare's result
  std::string resume_from;  // or empty
  std::string export_classes;
  std::string stage_cache;  // folder, or empty
  int64_t threads_per_slot = 1;
};

// kInvalidArgument with all violations when the plan would be refused by the ranks.
Result<Plan> BuildPlan(const v1::JobSpec& spec, const PlanContext& context);

// prepare.json (python/tandem/prepare.py says what it means).
std::string PrepareRequest(const v1::JobSpec& spec, const std::string& cache_folder);

}  // namespace tandem::agent
