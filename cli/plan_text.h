// The plan of a job for people: what each stage is expected to read, take and hold, as its ranks
// wrote it before their first step (worker/evaluate/estimate.h).
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace tandem::cli {

// A table with its heading, without the last newline; "" where the estimate is not there or says
// nothing.
std::string PlanText(const nlohmann::json& estimate);

// The same of <work>/jobs/<uid>.
std::string PlanTextOfJob(const std::string& work, const std::string& uid);

}  // namespace tandem::cli
