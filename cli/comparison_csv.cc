// The comparison as CSV.
#include "cli/comparison.h"

namespace tandem::cli {
namespace {

using nlohmann::json;

std::string CsvCell(const json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  const auto text = value.get<std::string>();
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string CsvLine(const std::vector<json>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) line += (i == 0 ? "" : ",") + CsvCell(cells[i]);
  return line + "\n";
}

}  // namespace

std::string ComparisonCsv(const json& comparison) {
  const auto recall = RecallColumns(comparison);
  const auto suites = SuiteNames(comparison);
  std::vector<json> head = {"job",  "recipe",     "verdict",        "mode",     "served",
                            "loss", "perplexity", "standard_error", "recovered"};
  for (const auto& column : recall) head.emplace_back(column.Title());
  for (const auto& suite : suites) head.emplace_back(suite);
  std::string csv = CsvLine(head);
  for (const auto& job : comparison["jobs"]) {
    for (const auto& mode : kComparedModes) {
      const auto& figures = At(job, {"components", mode});
      if (!figures.is_object()) continue;
      std::vector<json> cells = {job["name"], job["recipe"], job["verdict"], mode,
                                 job["served_mode"] == mode ? 1 : 0};
      for (const char* key : {"loss", "perplexity", "standard_error", "recovered"})
        cells.push_back(At(figures, {key}));
      for (const auto& column : recall) cells.push_back(RecallFigure(job, column, mode));
      for (const auto& suite : suites) cells.push_back(SuiteFigure(job, suite, mode));
      csv += CsvLine(cells);
    }
  }
  return csv;
}

}  // namespace tandem::cli
