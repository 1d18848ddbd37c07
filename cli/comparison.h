// The comparison of converted models as data: what `tandem compare -o json` prints and what table,
// CSV and page are drawn from. Pure.
//
//   {"version": 1,
//    "jobs": [{"name", "uid", "recipe", "served_mode", "verdict", "page", and of report.json, null
//              where it has none: verdict_reason, linear_capability, beyond_window, components,
//              beats_window, recall, passkey, long_range, suites, suites_average, lengths,
//              early_stop, retained, cost}],
//    "differences": [{"field", "values": [{"value", "jobs": [names]}]}],   of the resolved specs
//    "paired": null | {"best", "sequences", "rows": [{"name", "difference", "low", "high"}]},
//    "notes": [sentences]}
// paired: loss of each served mode minus that of the lowest one, sequence by sequence, with a 95 %
// interval (mean ± 1.96 standard errors); only where all reports scored the same tokens.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/compared_job.h"

namespace tandem::cli {

nlohmann::json ComparisonJson(const std::vector<ComparedJob>& jobs);

// One line per job and component mode: job, recipe, verdict, mode, served (1, 0), loss, perplexity,
// standard_error, recovered, then a column per recall row and suite. RFC 4180; undefined is empty.
std::string ComparisonCsv(const nlohmann::json& comparison);

// object[keys[0]][keys[1]]..., or null where one is missing.
const nlohmann::json& At(const nlohmann::json& object, const std::vector<std::string>& keys);

// A column of recall figures: kind "passkey", "needle", "recall", "key_value"; its measure
// ("distance", "facts", "pairs") with its value. In the order of the reports.
struct RecallColumn {
  std::string kind;
  std::string measure;
  int64_t value = 0;
  std::string Title() const;  // "passkey@800", "recall:8"
};
std::vector<RecallColumn> RecallColumns(const nlohmann::json& comparison);
// Share of the column's prompts that `mode` of the job answers, or null.
nlohmann::json RecallFigure(const nlohmann::json& job, const RecallColumn& column,
                            const std::string& mode);

std::vector<std::string> SuiteNames(const nlohmann::json& comparison);
nlohmann::json SuiteFigure(const nlohmann::json& job, const std::string& suite,
                           const std::string& mode);

inline const std::vector<std::string> kComparedModes = {"softmax",     "hybrid",     "window_only",
                                                        "linear_only", "sinks_only", "none"};

}  // namespace tandem::cli
