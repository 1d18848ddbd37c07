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

// Only what an agent made: a folder named by default, or our attempts' folders in one that the user
// chose.
void RemoveAttemptFolders(const std::string& runtime) {
  const auto names = ListFolder(runtime);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (name.starts_with("a") && IsFolder(JoinPath(runtime, name))) {
      static_cast<void>(RemoveTree(JoinPath(runtime, name)));
    }
  }
  rmdir(runtime.c_str());
}

}  // namespace

Result<std::unique_ptr<WorkerFolder>> WorkerFolder::Open(const std::string& path,
                                                         const std::string& runtime) {
  TANDEM_RETURN_IF_ERROR(MakeFolders(path));
  const std::string lock = JoinPath(path, "lock");
  const int fd = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(lock);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
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
  if (former.ok() && former->starts_with("/")) RemoveAttemptFolders(*former);
  if (mkdir(runtime_.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(runtime_);
  struct stat info {};
  if (lstat(runtime_.c_str(), &info) != 0) return ErrnoStatus(runtime_);
  if (!S_ISDIR(info.st_mode) || info.st_uid != getuid()) {
    return FailedPrecondition("runtime folder " + runtime_ +
                              " is not a folder of this user; pass another --runtime");
  }
  return WriteFileDurably(record, runtime_);
}

WorkerFolder::~WorkerFolder() {
  RemoveAttemptFolders(runtime_);
  close(lock_fd_);
}

Status WorkerFolder::WriteEndpoints(const std::string& metrics_address) const {
  return WriteFileDurably(JoinPath(path_, "endpoints.json"),
                          "{\"metrics\":" + JsonQuote(metrics_address) +
                              ",\"pid\":" + std::to_string(getpid()) + "}\n");
}

}  // namespace tandem::agent
