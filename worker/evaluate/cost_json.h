// A stage's cost as report.json has it (README.md: cost.stages[]), and its numbers: null where not
// finite or not known. Free of state; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>

#include "worker/evaluate/cost.h"

namespace tandem {

nlohmann::ordered_json Number(double value);
nlohmann::ordered_json Number(const std::optional<double>& value);

nlohmann::ordered_json StageCostJson(const StageCost& stage);

}  // namespace tandem
