#include "cli/compared_job.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "base/files.h"
#include "cli/job_text.h"
#include "spec/json.h"

namespace tandem::cli {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int64_t kMaxReportBytes = 64 << 20;

Result<json> ReadObject(const std::string& text, const std::string& what) {
  json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return InvalidArgument(what + " is not a JSON object");
  return value;
}

std::string TextAt(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// The resolved spec stands in the newest attempt's plan.
json SpecOf(const std::string& job_folder) {
  const std::string attempts = JoinPath(job_folder, "attempts");
  const auto epochs = ListFolder(attempts);
  if (!epochs.ok() || epochs->empty()) return nullptr;
  const auto number = [](const std::string& name) { return std::atoll(name.c_str()); };
  const std::string newest = *std::ranges::max_element(*epochs, {}, number);
  const auto text = ReadFile(JoinPath(attempts, newest + "/plan.json"), kMaxReportBytes);
  if (!text.ok()) return nullptr;
  const auto plan = json::parse(*text, nullptr, false);
  if (!plan.is_object()) return nullptr;
  json spec = json::parse(TextAt(plan, "spec_json"), nullptr, false);
  return spec.is_object() ? spec : json(nullptr);
}

Result<ComparedJob> ReadReport(const std::string& path) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxReportBytes));
  ComparedJob job;
  TANDEM_ASSIGN_OR_RETURN(job.report, ReadObject(text, path));
  job.name = ShortName(TextAt(job.report, "job"));
  if (job.name.empty()) job.name = path;
  job.uid = TextAt(job.report, "uid");
  const fs::path folder = fs::path(path).parent_path();
  if (folder.filename() != "artifacts") return job;
  const std::string job_folder = folder.parent_path().string();
  job.spec = SpecOf(job_folder);
  if (const auto page = JoinPath(job_folder, "report.html"); PathExists(page)) job.page = page;
  return job;
}

}  // namespace

Result<std::vector<ComparedJob>> ReadJobs(const std::string& path) {
  const std::string absolute = AbsolutePath(path);
  std::vector<std::string> reports;
  if (!IsFolder(absolute)) reports.push_back(absolute);
  for (const char* inside : {"report.json", "artifacts/report.json"}) {
    const auto file = JoinPath(absolute, inside);
    if (reports.empty() && PathExists(file)) reports.push_back(file);
  }
  if (const auto jobs = JoinPath(absolute, "jobs"); reports.empty() && IsFolder(jobs)) {
    TANDEM_ASSIGN_OR_RETURN(const auto uids, ListFolder(jobs));
    for (const auto& uid : uids) {
      const auto file = JoinPath(jobs, uid + "/artifacts/report.json");
      if (PathExists(file)) reports.push_back(file);
    }
  }
  if (reports.empty()) {
    return NotFound(path +
                    " holds no report; give a report.json, a job's folder or a work folder "
                    "with evaluated jobs");
  }
  std::vector<ComparedJob> found;
  for (const auto& report : reports) {
    TANDEM_ASSIGN_OR_RETURN(ComparedJob job, ReadReport(report));
    found.push_back(std::move(job));
  }
  std::ranges::stable_sort(found, {}, &ComparedJob::name);
  return found;
}

Result<ComparedJob> FetchJob(Client& client, const std::string& name) {
  TANDEM_ASSIGN_OR_RETURN(const v1::Job job, client.GetJob(name));
  if (!job.has_report()) {
    return NotFound("job " + ShortName(job.name()) + " is " + StateText(job.state()) +
                    " and has no report; it is written by the stage evaluate");
  }
  TANDEM_ASSIGN_OR_RETURN(const auto report, client.GetReport(job.name(), "json"));
  ComparedJob compared{
      ShortName(job.name()), job.uid(), {}, ProtoToJson(job.spec()), job.report_path()};
  TANDEM_ASSIGN_OR_RETURN(compared.report,
                          ReadObject(report.content(), "the report of " + compared.name));
  return compared;
}

void MakeNamesUnique(std::vector<ComparedJob>& jobs) {
  std::vector<std::string> names;
  for (const auto& job : jobs) names.push_back(job.name);
  for (auto& job : jobs) {
    if (std::ranges::count(names, job.name) > 1 && !job.uid.empty())
      job.name += "-" + job.uid.substr(0, 6);
  }
}

}  // namespace tandem::cli
