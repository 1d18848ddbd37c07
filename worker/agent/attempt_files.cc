#include "worker/agent/attempt_files.h"

#include <google/protobuf/util/json_util.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "worker/agent/exit_cause.h"

namespace tandem::agent {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxReportBytes = 64 << 20;

// protobuf's parser takes null for most fields, but not for map values.
void DropNulls(Json& value) {
  if (value.is_object()) {
    for (auto member = value.begin(); member != value.end();) {
      if (member->is_null()) {
        member = value.erase(member);
      } else {
        DropNulls(*member++);
      }
    }
  } else if (value.is_array()) {
    for (Json& item : value) DropNulls(item);
  }
}

std::string TextIn(const Json& object, const std::string& key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

int64_t IntegerIn(const Json& object, const std::string& key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

}  // namespace

std::string TextOf(const std::string& json, const std::string& key) {
  return TextIn(Json::parse(json, nullptr, false), key);
}

int64_t IntegerOf(const std::string& json, const std::string& key) {
  return IntegerIn(Json::parse(json, nullptr, false), key);
}

PrepareLine ParsePrepareLine(const std::string& line) {
  PrepareLine said;
  const Json json = Json::parse(line, nullptr, false);
  const std::string event = TextIn(json, "event");
  said.documents = IntegerIn(json, "documents");
  if (event == "result") said.tokens_folder = TextIn(json, "tokens");
  if (event == "error") {
    const std::string field = TextIn(json, "field");
    said.error = (field.empty() ? "" : field + ": ") + TextIn(json, "message");
    if (said.error.empty()) said.error = line;
  }
  return said;
}

Result<v1::ComponentReport> ReadComponentReport(const std::string& path) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxReportBytes));
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return DataLoss(path + " is not a JSON object");
  DropNulls(json);
  v1::ComponentReport report;
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json.dump(), &report, options);
  if (!parsed.ok()) return DataLoss(path + ": " + std::string(parsed.message()));
  if (report.verdict().empty()) return DataLoss(path + " has no verdict");
  return report;
}

std::string LastErrorLines(const std::string& attempt_folder) {
  const auto names = ListFolder(attempt_folder);
  std::string lines;
  bool ranks_ran = false;
  if (names.ok()) {
    for (const std::string& name : *names) {
      if (!name.starts_with("rank-") || !name.ends_with(".err")) continue;
      ranks_ran = true;
      const std::string said = LastLines(JoinPath(attempt_folder, name), 600);
      if (!said.empty()) lines += (lines.empty() ? "" : "\n") + said;
      if (lines.size() > 1200) break;
    }
  }
  // Once ranks ran, mpirun only adds its banner around an exit code that is known already.
  return ranks_ran ? lines : LastLines(JoinPath(attempt_folder, "mpirun.err"));
}

}  // namespace tandem::agent
