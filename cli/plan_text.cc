#include "cli/plan_text.h"

#include <vector>

#include "base/files.h"
#include "cli/align.h"
#include "cli/output.h"

namespace tandem::cli {
namespace {

using nlohmann::json;

double NumberOf(const json& object, const char* key) {
  return object.contains(key) && object[key].is_number() ? object[key].get<double>() : 0;
}
std::string TextOf(const json& object, const char* key) {
  return object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

// Below a minute the tables' "0:07" says less than the unit.
std::string TimeText(double seconds) {
  return seconds < 60 ? Fixed(seconds, seconds < 10 ? 1 : 0) + " s" : Duration(seconds);
}

std::string SizeText(double bytes) {
  return bytes < 1e9 ? Fixed(bytes * 1e-6, 0) + " MB" : Fixed(bytes * 1e-9, 1) + " GB";
}

std::vector<std::string> RowOf(const json& stage) {
  const double steps = NumberOf(stage, "steps"), tokens = NumberOf(stage, "tokens"),
               bytes = NumberOf(stage, "memory_bytes");
  return {"  " + TextOf(stage, "stage"), Right(steps > 0 ? Grouped(steps) : "-", 8),
          Right(tokens > 0 ? Grouped(tokens) : "-", 14),
          Right(TimeText(NumberOf(stage, "seconds")), 9),
          Right(bytes > 0 ? SizeText(bytes) : "-", 9)};
}

}  // namespace

std::string PlanText(const json& estimate) {
  if (!estimate.is_object() || !estimate.contains("stages") || !estimate["stages"].is_array() ||
      estimate["stages"].empty()) {
    return "";
  }
  std::vector<std::vector<std::string>> rows = {
      {"  STAGE", Right("STEPS", 8), Right("TOKENS", 14), Right("TIME", 9), Right("MEMORY", 9)}};
  for (const json& stage : estimate["stages"]) {
    if (stage.is_object()) rows.push_back(RowOf(stage));
  }
  std::string table = Table(rows);
  if (table.ends_with('\n')) table.pop_back();
  const double ranks = NumberOf(estimate, "ranks");
  return "plan: about " + TimeText(NumberOf(estimate, "seconds")) + " on " + Fixed(ranks, 0) +
         (ranks == 1 ? " rank" : " ranks") +
         ", estimated from a rehearsal of each stage; memory is one rank's\n" + table;
}

std::string PlanTextOfJob(const std::string& work, const std::string& uid) {
  const auto text = ReadFile(work + "/jobs/" + uid + "/artifacts/estimate.json");
  return text.ok() ? PlanText(json::parse(*text, nullptr, /*allow_exceptions=*/false)) : "";
}

}  // namespace tandem::cli
