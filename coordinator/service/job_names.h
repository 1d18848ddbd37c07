// Job names and states as text: projects/{project}/jobs/{job}, "RUNNING". Pure.
#pragma once

#include <string>

#include "base/status.h"
#include "tandem/v1/fleet.pb.h"
#include "tandem/v1/job.pb.h"

namespace tandem::service {

inline constexpr char kDefaultProject[] = "default";

std::string JobName(const std::string& project, const std::string& job);
std::string ProjectOf(const std::string& job_name);
// A full name, a uid or a job id. What to look up: the full name, or the text itself when it could
// be a uid as well.
Status CheckJobName(const std::string& name);
// "workers/x" or "x" -> "x"; INVALID_ARGUMENT otherwise.
Result<std::string> WorkerIdOf(const std::string& name);

std::string StateName(v1::JobState state);     // JOB_STATE_RUNNING -> RUNNING
std::string StateName(v1::WorkerState state);  // WORKER_STATE_READY -> READY
bool IsTerminal(v1::JobState state);
// Every state but UNSPECIFIED, in order, separated by ", ".
std::string AllJobStates();

}  // namespace tandem::service
