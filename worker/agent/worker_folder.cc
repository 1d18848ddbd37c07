#include "worker/agent/worker_folder.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/files.h"
#include "base/log.h"
#include "worker/agent/marked_processes.h"

namespace tandem::agent {
namespace {

constexpr int64_t kKillMs = 20'000;
constexpr const char* kRuntimeLock = "lock";

Status KillLeftovers(const std::string& path) {
  const int64_t deadline = Clock::System().MonotonicMs() + kKillMs;
  for (bool first = true;; first = false) {
    const size_t left = KillMarked(WorkerMark(path));
    if (left == 0) return Status::Ok();
    if (first)
      Log(LogLevel::kWarning, "leftovers_killed", {{"processes", static_cast<int64_t>(left)}});
    if (Clock::System().MonotonicMs() > deadline) {
      return {Code::kDeadlineExceeded, std::to_string(left) +
                                           " processes of a former agent do not end although they "
                                           "were killed; look at their state in ps"};
    }
    poll(nullptr, 0, 10);  // the kernel tears them down
  }
}

// The descriptor, or -1 when it is not there or another process holds it.
int TakeLock(const std::string& path, int flags) {
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | flags, 0600);
  if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  close(fd);
  return -1;
}

// Only what an agent made: its attempts' folders, its lock, and then the folder if nothing else is
// in it.
void RemoveRuntime(const std::string& runtime) {
  const auto names = ListFolder(runtime);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (name.starts_with("a") && IsFolder(JoinPath(runtime, name))) {
      static_cast<void>(RemoveTree(JoinPath(runtime, name)));
    }
  }
  unlink(JoinPath(runtime, kRuntimeLock).c_str());
  rmdir(runtime.c_str());
}

// Agents that were killed and never started again leave theirs behind. A living one holds its lock,
// whatever process namespace it lives in.
void RemoveAbandonedRuntimes(const std::string& prefix) {
  const size_t slash = prefix.rfind('/');
  const std::string folder = prefix.substr(0, slash);
  const auto names = ListFolder(folder);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (!name.starts_with(prefix.substr(slash + 1))) continue;
    const int fd = TakeLock(JoinPath(folder, name + "/" + kRuntimeLock), 0);
    if (fd < 0) continue;
    RemoveRuntime(JoinPath(folder, name));
    close(fd);
  }
}

}  // namespace

Result<std::unique_ptr<WorkerFolder>> WorkerFolder::Open(const std::string& path,
                                                         const std::string& runtime) {
  TANDEM_RETURN_IF_ERROR(MakeFolders(path));
  const std::string lock = JoinPath(path, "lock");
  const int fd = TakeLock(lock, O_CREAT);
  if (fd < 0) {
    return FailedPrecondition("another tandem-worker runs in " + path +
                              "; stop it, or give this one another --name");
  }
  std::unique_ptr<WorkerFolder> folder(new WorkerFolder(path, runtime, fd));
  TANDEM_RETURN_IF_ERROR(KillLeftovers(path));
  TANDEM_RETURN_IF_ERROR(folder->TakeRuntime());
  return folder;
}

Status WorkerFolder::TakeRuntime() {
  const std::string record = JoinPath(path_, "runtime");
  const auto former = ReadFile(record, 4096);
  if (former.ok() && former->starts_with("/")) RemoveRuntime(*former);
  RemoveAbandonedRuntimes(DefaultRuntimePrefix());
  if (mkdir(runtime_.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(runtime_);
  struct stat info {};
  if (lstat(runtime_.c_str(), &info) != 0) return ErrnoStatus(runtime_);
  if (!S_ISDIR(info.st_mode) || info.st_uid != getuid()) {
    return FailedPrecondition("runtime folder " + runtime_ +
                              " is not a folder of this user; pass another --runtime");
  }
  runtime_lock_fd_ = TakeLock(JoinPath(runtime_, kRuntimeLock), O_CREAT);
  if (runtime_lock_fd_ < 0) {
    return FailedPrecondition("runtime folder " + runtime_ +
                              " is used by another tandem-worker; pass another --runtime");
  }
  return WriteFileDurably(record, runtime_);
}

WorkerFolder::~WorkerFolder() {
  if (runtime_lock_fd_ >= 0) {
    RemoveRuntime(runtime_);
    close(runtime_lock_fd_);
  }
  close(lock_fd_);
}

std::string DefaultRuntimePrefix() {
  return "/tmp/tandem-" + std::to_string(getuid()) + "-";
}

Status WorkerFolder::WriteEndpoints(const std::string& metrics_address) const {
  return WriteFileDurably(JoinPath(path_, "endpoints.json"),
                          "{\"metrics\":" + JsonQuote(metrics_address) +
                              ",\"pid\":" + std::to_string(getpid()) + "}\n");
}

}  // namespace tandem::agent
