#include "cli/job_text.h"

#include <google/protobuf/timestamp.pb.h>

#include <algorithm>
#include <cmath>

#include "spec/json.h"

namespace tandem::cli {
namespace {

constexpr int kProgressCells = 24;

int64_t Milliseconds(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1000 + time.nanos() / 1'000'000;
}

// How long the job has been running, or ran.
std::string RunTime(const v1::Job& job, int64_t now_ms) {
  if (!job.has_start_time()) return "-";
  const int64_t end = job.has_end_time() ? Milliseconds(job.end_time()) : now_ms;
  return Duration(static_cast<double>(end - Milliseconds(job.start_time())) / 1000);
}

std::string Age(const google::protobuf::Timestamp& time, int64_t now_ms) {
  return Duration(static_cast<double>(now_ms - Milliseconds(time)) / 1000);
}

// Its worker and progress are the last attempt's.
bool IsPending(const v1::Job& job) {
  return job.state() == v1::JOB_STATE_PENDING;
}

std::string Where(const v1::Job& job) {
  const auto& progress = job.progress();
  if (IsTerminal(job.state()) || IsPending(job) || progress.stage().empty()) return "-";
  std::string text = progress.stage();
  if (progress.steps() > 0)
    text += " " + std::to_string(progress.step()) + "/" + std::to_string(progress.steps());
  return text;
}

std::string Remark(const v1::Job& job) {
  if (!job.report().verdict().empty()) return job.report().verdict();
  return job.reason().empty() ? "-" : job.reason();
}

std::string FirstLine(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

void AddRow(std::vector<std::vector<std::string>>& rows, const std::string& head,
            const std::string& value) {
  if (!value.empty()) rows.push_back({head, value});
}

std::string WithoutPrefix(const std::string& text, const std::string& prefix) {
  return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
}

}  // namespace

bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

std::string StateText(v1::JobState state) {
  return WithoutPrefix(v1::JobState_Name(state), "JOB_STATE_");
}

std::string StateText(v1::WorkerState state) {
  return WithoutPrefix(v1::WorkerState_Name(state), "WORKER_STATE_");
}

std::string ShortName(const std::string& name) {
  const std::string own = "projects/default/jobs/";
  if (name.starts_with(own)) return name.substr(own.size());
  const size_t project = std::string("projects/").size();
  const size_t slash = name.find("/jobs/");
  if (!name.starts_with("projects/") || slash == std::string::npos) return name;
  return name.substr(project, slash - project) + "/" + name.substr(slash + 6);
}

std::string ShortWorkerName(const std::string& name) {
  return WithoutPrefix(name, "workers/");
}

std::string JobTable(const std::vector<v1::Job>& jobs, int64_t now_ms) {
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "STATE", "RECIPE", "STAGE", "TIME", "WORKER", "REMARK"}};
  for (const auto& job : jobs) {
    rows.push_back({ShortName(job.name()), StateText(job.state()),
                    job.spec().recipe().empty() ? "stages" : job.spec().recipe(), Where(job),
                    RunTime(job, now_ms),
                    job.worker().empty() || IsPending(job) ? "-" : job.worker(), Remark(job)});
  }
  return Table(rows);
}

std::string JobDetails(const v1::Job& job, int64_t now_ms) {
  std::vector<std::vector<std::string>> rows;
  AddRow(rows, "Job", job.name());
  AddRow(rows, "Uid", job.uid());
  AddRow(rows, "State", StateText(job.state()));
  AddRow(rows, "Reason", job.reason());
  AddRow(rows, "Message", job.message());
  AddRow(rows, "Recipe", job.spec().recipe());
  AddRow(rows, "Model", job.spec().model().path());
  AddRow(rows, "Slots", std::to_string(job.slots()));
  AddRow(rows, "Attempts", std::to_string(job.epoch()));
  AddRow(rows, "Worker", job.worker());
  if (job.has_create_time()) AddRow(rows, "Created", Age(job.create_time(), now_ms) + " ago");
  if (job.has_start_time()) AddRow(rows, "Run time", RunTime(job, now_ms));
  if (!IsTerminal(job.state()) && !job.progress().stage().empty())
    AddRow(rows, "Progress", ProgressWords(job));
  AddRow(rows, "Verdict", job.report().verdict());
  AddRow(rows, "Model out", job.artifact());
  AddRow(rows, "Report", job.report_path());
  return Table(rows);
}

std::string WorkerTable(const std::vector<v1::Worker>& workers, int64_t now_ms) {
  std::vector<std::vector<std::string>> rows = {
      {"WORKER", "STATE", "SLOTS", "GPUS", "HOST", "DEVICE", "HEARTBEAT", "JOBS"}};
  for (const auto& worker : workers) {
    std::string jobs;
    for (const auto& job : worker.jobs()) jobs += (jobs.empty() ? "" : ", ") + ShortName(job);
    rows.push_back(
        {ShortWorkerName(worker.name()), StateText(worker.state()),
         std::to_string(worker.slots_in_use()) + "/" + std::to_string(worker.slots()),
         worker.gpus() == 0
             ? "-"
             : std::to_string(worker.gpus_in_use()) + "/" + std::to_string(worker.gpus()),
         worker.host(), worker.device(),
         worker.has_last_heartbeat() ? Age(worker.last_heartbeat(), now_ms) + " ago" : "-",
         jobs.empty() ? "-" : jobs});
  }
  return Table(rows);
}

std::string ProgressWords(const v1::Job& job) {
  const auto& progress = job.progress();
  if (job.state() != v1::JOB_STATE_RUNNING || progress.stage().empty()) {
    std::string text = StateText(job.state());
    if (!job.reason().empty()) text += " (" + job.reason() + ")";
    if (!job.message().empty()) text += ": " + FirstLine(job.message());
    return text;
  }
  std::string text = progress.stage();
  if (progress.stage_count() > 0) {
    text += " (" + std::to_string(progress.stage_index() + 1) + "/" +
            std::to_string(progress.stage_count()) + ")";
  }
  if (progress.steps() > 0)
    text += "  step " + std::to_string(progress.step()) + "/" + std::to_string(progress.steps());
  if (progress.loss() != 0 && std::isfinite(progress.loss()))
    text += "  loss " + Fixed(progress.loss(), 4);
  if (progress.tokens_per_second() > 0)
    text += "  " + Grouped(progress.tokens_per_second()) + " tokens/s";
  if (progress.eta_seconds() > 0) text += "  ETA " + Duration(progress.eta_seconds());
  return text;
}

std::string ProgressBar(const v1::Job& job, const TextStyle& style) {
  const auto& progress = job.progress();
  std::string words = ProgressWords(job);
  if (job.state() != v1::JOB_STATE_RUNNING || progress.steps() <= 0)
    return words.substr(0, static_cast<size_t>(style.width));
  const int room = style.width - static_cast<int>(words.size()) - 4;
  if (room < 8) return words.substr(0, static_cast<size_t>(style.width));
  const double share = static_cast<double>(progress.step()) / static_cast<double>(progress.steps());
  return Coloured(Bar(share, std::min(kProgressCells, room), style), Colour::kGreen, style) + "  " +
         words;
}

}  // namespace tandem::cli
