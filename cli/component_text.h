// The component report in words and as JSON: what carries the quality of a converted model. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "cli/output.h"
#include "tandem/v1/job.pb.h"

namespace tandem::cli {

// The table by mode, the verdict with its reason, passkey by distance. `sinks`: tokens that
// sinks_only reads.
std::string ComponentTable(const v1::ComponentReport& report, int64_t sinks,
                           const TextStyle& style);

// What `run -o json` and `report -o json` give: job, state, verdict, verdict_reason,
// linear_capability, components {mode: {loss, perplexity, standard_error, recovered}} (recovered
// null where undefined), passkey, artifact, report.
nlohmann::json ResultJson(const v1::Job& job);

// 2 balanced, 1 leaning, 0 collapsed, -1 anything else.
int VerdictRank(const std::string& verdict);

}  // namespace tandem::cli
