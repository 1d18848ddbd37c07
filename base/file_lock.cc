#include "base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace tandem {

FileLock::~FileLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

Status FileLock::Take(const std::string& path, std::string* owner) {
  TANDEM_CHECK(descriptor_ < 0);
  descriptor_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) return ErrnoStatus("cannot open " + path);
  if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    char pid[32];
    const ssize_t size = pread(descriptor_, pid, sizeof pid, 0);
    *owner = size > 0 ? std::string(pid, static_cast<size_t>(size)) : "?";
    return FailedPrecondition(path + " is held by process " + *owner);
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(descriptor_, 0) != 0 || pwrite(descriptor_, pid.data(), pid.size(), 0) < 0) {
    return ErrnoStatus("cannot write " + path);
  }
  return Status::Ok();
}

}  // namespace tandem
