// How `tandem compare` and `tandem sweep` give a comparison: the option -o, and the page.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/status.h"

namespace CLI {
class App;
}

namespace tandem::cli {

struct ComparisonOutput {
  std::string format = "table";  // table, json, csv, yaml, name
  std::string html;              // also a page, to this file; "": none
};

// A subcommand with -o FORMAT and --html FILE.
CLI::App* AddComparisonVerb(CLI::App& app, const std::string& name, const std::string& words,
                            ComparisonOutput& output);

// Prints; writes the page where one is asked for. The Python package beside this binary makes it
// (TANDEM_PYTHON and TANDEM_PYTHONPATH name others).
Status GiveComparison(const nlohmann::json& comparison, const ComparisonOutput& output);

}  // namespace tandem::cli
