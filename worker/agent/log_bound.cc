#include "worker/agent/log_bound.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"

namespace tandem::agent {
namespace {

constexpr int64_t kStatBlockBytes = 512;  // st_blocks counts these, whatever the file system's are

Status BoundFile(int fd, const std::string& path, int64_t kept_bytes) {
  struct stat info {};
  if (fstat(fd, &info) != 0) return ErrnoStatus(path);
  const int64_t occupied = info.st_blocks * kStatBlockBytes;
  if (occupied <= kept_bytes + kept_bytes / 4) return Status::Ok();
  // Whole blocks alone: part of one would be overwritten with zeros, and be read as text.
  const int64_t dropped = (info.st_size - kept_bytes) / info.st_blksize * info.st_blksize;
  if (dropped <= 0) return Status::Ok();
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, dropped) == 0) {
    return Status::Ok();
  }
  if (errno != EOPNOTSUPP && errno != ENOSYS) return ErrnoStatus(path);
  return {Code::kUnimplemented, path + " cannot be shortened: its file system has no holes"};
}

}  // namespace

bool IsLogName(const std::string& name) {
  return name.ends_with(".out") || name.ends_with(".err");
}

Status BoundLogs(const std::string& attempt_folder, int64_t kept_bytes) {
  TANDEM_ASSIGN_OR_RETURN(const auto names, ListFolder(attempt_folder));
  for (const std::string& name : names) {
    if (!IsLogName(name)) continue;
    const std::string path = JoinPath(attempt_folder, name);
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return ErrnoStatus(path);
    const Status bounded = BoundFile(fd, path, kept_bytes);
    close(fd);
    TANDEM_RETURN_IF_ERROR(bounded);
  }
  return Status::Ok();
}

}  // namespace tandem::agent
