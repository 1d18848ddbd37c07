// The comparison in words, from ComparisonJson: one table of components and judgements, then paired
// losses, recall, suites, and what differs in the specs. Fits the style's width: below 80 columns
// each job is told in lines of its own. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "cli/output.h"

namespace tandem::cli {

std::string ComparisonText(const nlohmann::json& comparison, const TextStyle& style);

}  // namespace tandem::cli
