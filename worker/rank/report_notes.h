// What training has to tell the report besides its losses. Rank 0 alone; files of the job's folder.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "worker/plan/plan.h"
#include "worker/rank/early_stop.h"

namespace tandem {

// Written before the stage is committed, so that the report has it whatever attempt evaluates.
void WriteEarlyStop(const Plan& plan, const EarlyStop& stop, int64_t stage_index);
// EvaluationInputs::notes: key -> JSON, of early_stop, retain_scores, transfer_divergence and
// divergence those that there are.
std::map<std::string, std::string> ReportNotes(const Plan& plan, const std::string& retain_scores);

}  // namespace tandem
