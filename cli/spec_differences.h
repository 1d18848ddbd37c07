// What the resolved specs of compared jobs have apart. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "cli/compared_job.h"

namespace tandem::cli {

// [{"field", "values": [{"value", "jobs": [names]}]}], by field. A stage's fields are those of the
// jobs that have it; name, project, priority and the control's path do not count, nor do jobs whose
// spec is not known.
nlohmann::json SpecDifferences(const std::vector<ComparedJob>& jobs);

}  // namespace tandem::cli
