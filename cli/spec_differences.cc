#include "cli/spec_differences.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "cli/comparison.h"

namespace tandem::cli {
namespace {

using nlohmann::json;

// "attention.window.size" -> value; lists are values. Stages are named by their kind where that is
// unique.
void Flatten(const json& value, const std::string& path, std::map<std::string, json>& fields) {
  if (!value.is_object()) {
    fields[path] = value;
    return;
  }
  for (const auto& [key, item] : value.items())
    Flatten(item, path.empty() ? key : path + "." + key, fields);
}

std::map<std::string, json> FieldsOf(const json& spec) {
  json rest = spec;
  std::map<std::string, json> fields;
  std::map<std::string, int> seen;
  std::string kinds;
  for (const auto& stage : At(spec, {"stages"})) {
    if (!stage.is_object()) continue;
    for (const auto& [kind, body] : stage.items()) {
      const int count = ++seen[kind];
      kinds += (kinds.empty() ? "" : ", ") + kind;
      Flatten(body, count == 1 ? kind : kind + "#" + std::to_string(count), fields);
    }
  }
  if (rest.contains("stages")) fields["stages"] = kinds;
  rest.erase("stages");
  for (const char* own : {"name", "project", "priority"}) rest.erase(own);
  if (rest.contains("evaluate") && rest["evaluate"].is_object()) rest["evaluate"].erase("control");
  Flatten(rest, "", fields);
  return fields;
}

// A field of a stage that the job does not have: `stages` says that already.
bool IsOfAbsentStage(const std::string& path, const std::map<std::string, json>& fields) {
  const std::string kind = path.substr(0, path.find('.'));
  if (!kind.starts_with("attention_transfer") && !kind.starts_with("finetune")) return false;
  const auto next = fields.lower_bound(kind + ".");
  return next == fields.end() || !next->first.starts_with(kind + ".");
}

}  // namespace

json SpecDifferences(const std::vector<ComparedJob>& jobs) {
  std::vector<std::pair<std::string, std::map<std::string, json>>> specs;
  std::set<std::string> paths;
  for (const auto& job : jobs) {
    if (!job.spec.is_object()) continue;
    specs.emplace_back(job.name, FieldsOf(job.spec));
    for (const auto& [path, value] : specs.back().second) paths.insert(path);
  }
  json differences = json::array();
  for (const auto& path : paths) {
    json values = json::array();
    for (const auto& [name, fields] : specs) {
      if (IsOfAbsentStage(path, fields)) continue;
      const auto found = fields.find(path);
      const json value = found == fields.end() ? json(nullptr) : found->second;
      const auto same =
          std::ranges::find_if(values, [&](const json& v) { return v["value"] == value; });
      if (same != values.end()) {
        (*same)["jobs"].push_back(name);
      } else {
        values.push_back({{"value", value}, {"jobs", {name}}});
      }
    }
    if (values.size() > 1) differences.push_back({{"field", path}, {"values", values}});
  }
  return differences;
}

}  // namespace tandem::cli
