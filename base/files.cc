#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <system_error>

namespace tandem {
namespace fs = std::filesystem;
namespace {

std::string ParentOf(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

Status WriteAll(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t put = write(fd, content.data(), content.size());
    if (put < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(path);
    }
    content.remove_prefix(static_cast<size_t>(put));
  }
  return Status::Ok();
}

}  // namespace

Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(path);
  struct stat info {};
  Status failed;
  std::string content;
  if (fstat(fd, &info) != 0) {
    failed = ErrnoStatus(path);
  } else if (S_ISDIR(info.st_mode)) {
    failed = InvalidArgument(path + " is a folder; a file is needed");
  } else if (info.st_size > max_bytes) {
    failed = InvalidArgument(path + " has " + std::to_string(info.st_size) + " bytes; at most " +
                             std::to_string(max_bytes) + " are read");
  } else {
    char buffer[1 << 16];
    ssize_t got = 0;
    while ((got = read(fd, buffer, sizeof buffer)) > 0) {
      content.append(buffer, static_cast<size_t>(got));
      if (static_cast<int64_t>(content.size()) > max_bytes) break;
    }
    if (got < 0) failed = ErrnoStatus(path);
  }
  close(fd);
  if (!failed.ok()) return failed;
  return content;
}

Status WriteFileDurably(const std::string& path, std::string_view content) {
  static std::atomic<unsigned> counter{0};
  const std::string beside =
      path + ".tmp-" + std::to_string(getpid()) + "-" + std::to_string(counter++);
  const int fd = open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(beside);
  Status status = WriteAll(fd, content, beside);
  if (status.ok() && fsync(fd) != 0) status = ErrnoStatus(beside);
  if (close(fd) != 0 && status.ok()) status = ErrnoStatus(beside);
  if (status.ok()) status = RenameDurably(beside, path);
  if (!status.ok()) unlink(beside.c_str());
  return status;
}

Status MakeFolders(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error && !fs::is_directory(path)) return {Code::kUnknown, path + ": " + error.message()};
  return Status::Ok();
}

Status SyncPath(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(path);
  const Status status = fsync(fd) == 0 ? Status::Ok() : ErrnoStatus(path);
  close(fd);
  return status;
}

Status RenameDurably(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0) return ErrnoStatus(from + " -> " + to);
  return SyncPath(ParentOf(to));
}

Result<std::vector<std::string>> ListFolder(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator it(path, error);
  if (error) return Status(Code::kNotFound, path + ": " + error.message());
  for (; it != fs::directory_iterator(); it.increment(error)) {
    if (error) return Status(Code::kUnknown, path + ": " + error.message());
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Status RemoveTree(const std::string& path) {
  if (path.size() < 2 || path[0] != '/') return InvalidArgument("will not remove '" + path + "'");
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return {Code::kUnknown, path + ": " + error.message()};
  return Status::Ok();
}

bool PathExists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

bool IsFolder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

std::string JoinPath(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(fs::absolute(path, error), error);
  return whole.empty() ? path : whole.string();
}

}  // namespace tandem
