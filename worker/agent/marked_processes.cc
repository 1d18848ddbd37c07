#include "worker/agent/marked_processes.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "base/files.h"

namespace tandem::agent {
namespace {

constexpr int64_t kMaxEnvironmentBytes = 4 << 20;

// `environment` is NUL-separated.
bool HasEntry(const std::string& environment, const std::string& mark) {
  if (environment.compare(0, mark.size(), mark) == 0) return true;
  return environment.find(std::string(1, '\0') + mark) != std::string::npos;
}

bool IsNumber(const std::string& name) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::string WorkerMark(const std::string& worker_folder) {
  return "TANDEM_ATTEMPT=" + worker_folder + "|";
}

std::string AttemptMark(const std::string& worker_folder, const std::string& job_uid,
                        int64_t epoch) {
  return WorkerMark(worker_folder) + job_uid + "|" + std::to_string(epoch) + "|";
}

std::vector<pid_t> FindMarked(const std::string& mark) {
  std::vector<pid_t> found;
  const auto names = ListFolder("/proc");
  if (!names.ok()) return found;
  for (const std::string& name : *names) {
    if (!IsNumber(name)) continue;
    const pid_t pid = std::atoi(name.c_str());
    if (pid == getpid()) continue;
    const auto environment = ReadFile("/proc/" + name + "/environ", kMaxEnvironmentBytes);
    if (environment.ok() && HasEntry(*environment, mark)) found.push_back(pid);
  }
  return found;
}

size_t KillMarked(const std::string& mark) {
  const std::vector<pid_t> found = FindMarked(mark);
  for (pid_t pid : found) kill(pid, SIGKILL);
  return found.size();
}

}  // namespace tandem::agent
