#include "coordinator/service/job_names.h"

#include "base/flag_text.h"

namespace tandem::service {
namespace {

constexpr char kProjects[] = "projects/";
constexpr char kJobs[] = "/jobs/";
constexpr char kWorkers[] = "workers/";

std::string WithoutPrefix(const std::string& name, const std::string& prefix) {
  return name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : name;
}

}  // namespace

std::string JobName(const std::string& project, const std::string& job) {
  return kProjects + project + kJobs + job;
}

std::string ProjectOf(const std::string& job_name) {
  const size_t end = job_name.find(kJobs);
  if (end == std::string::npos) return "";
  return WithoutPrefix(job_name.substr(0, end), kProjects);
}

Status CheckJobName(const std::string& name) {
  if (name.empty()) {
    return InvalidArgument("name is empty; pass projects/{project}/jobs/{job}, a job or a uid");
  }
  if (IsName(name)) return Status::Ok();
  const size_t middle = name.find(kJobs);
  if (name.rfind(kProjects, 0) == 0 && middle != std::string::npos && IsName(ProjectOf(name)) &&
      IsName(name.substr(middle + sizeof kJobs - 1))) {
    return Status::Ok();
  }
  return InvalidArgument("name is '" + name.substr(0, 200) +
                         "'; must be projects/{project}/jobs/{job}, a job of project 'default', "
                         "or a uid, of letters, digits, '-', '_' and '.'");
}

Result<std::string> WorkerIdOf(const std::string& name) {
  const std::string id = WithoutPrefix(name, kWorkers);
  if (IsName(id)) return id;
  return InvalidArgument("name is '" + name.substr(0, 200) +
                         "'; must be workers/{worker}, of letters, digits, '-', '_' and '.'");
}

std::string StateName(v1::JobState state) {
  return WithoutPrefix(v1::JobState_Name(state), "JOB_STATE_");
}

std::string StateName(v1::WorkerState state) {
  return WithoutPrefix(v1::WorkerState_Name(state), "WORKER_STATE_");
}

bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

std::string AllJobStates() {
  std::string all;
  for (int state = v1::JobState_MIN + 1; state <= v1::JobState_MAX; ++state) {
    all += (all.empty() ? "" : ", ") + StateName(static_cast<v1::JobState>(state));
  }
  return all;
}

}  // namespace tandem::service
