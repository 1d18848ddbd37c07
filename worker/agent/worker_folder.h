// Worker folder: <work>/workers/<name>, what one agent keeps between its lives.
//
//   lock            held while the agent lives: a second agent of the same name is refused
//   runtime         path of the runtime folder of the life that holds the lock; swept by the next
//   outbox/         outbox.h
//   endpoints.json  {"metrics", "pid"}, written when the agent serves
#pragma once

#include <memory>
#include <string>

#include "base/status.h"

namespace tandem::agent {

// "/tmp/tandem-<uid>-", before the pid, in the runtime folder's default name.
std::string DefaultRuntimePrefix();

class WorkerFolder {
 public:
  // Takes the lock, kills every process that a former life's attempts left, removes its temporary
  // files, and makes the runtime folder (0700). kFailedPrecondition when another agent holds the
  // lock, kDeadlineExceeded when something does not die. Call before anything else is started.
  static Result<std::unique_ptr<WorkerFolder>> Open(const std::string& path,
                                                    const std::string& runtime);
  // Removes the runtime folder.
  ~WorkerFolder();
  WorkerFolder(const WorkerFolder&) = delete;
  WorkerFolder& operator=(const WorkerFolder&) = delete;

  const std::string& path() const { return path_; }
  Status WriteEndpoints(const std::string& metrics_address) const;

 private:
  WorkerFolder(std::string path, std::string runtime, int lock_fd)
      : path_(std::move(path)), runtime_(std::move(runtime)), lock_fd_(lock_fd) {}
  Status TakeRuntime();

  const std::string path_;
  const std::string runtime_;
  const int lock_fd_;
  int runtime_lock_fd_ = -1;  // held while the runtime folder is ours
};

}  // namespace tandem::agent
