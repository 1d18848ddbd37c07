#include "worker/agent/log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/files.h"
#include "worker/agent/log_bound.h"

namespace tandem::agent {
namespace {

bool IsPlainName(const std::string& name) {
  return !name.empty() && name[0] != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

int64_t NewestEpoch(const std::string& attempts_folder) {
  int64_t newest = 0;
  const auto names = ListFolder(attempts_folder);
  if (!names.ok()) return 0;
  for (const std::string& name : *names) {
    newest = std::max<int64_t>(newest, std::strtoll(name.c_str(), nullptr, 10));
  }
  return newest;
}

// At or behind `offset`: where the file has bytes, past a hole that log_bound.h has made.
int64_t FirstKept(int fd, int64_t offset, int64_t size) {
  const int64_t kept = lseek(fd, offset, SEEK_DATA);
  if (kept >= 0) return kept;
  return errno == ENXIO ? size : offset;
}

void ReadPartOf(int fd, const v1::ReadLogs& request, v1::LogChunk& chunk) {
  struct stat info {};
  fstat(fd, &info);
  const int64_t size = info.st_size;
  int64_t offset = std::clamp<int64_t>(request.offset(), 0, size);
  if (offset == 0 && request.tail_bytes() > 0) {
    offset = std::max<int64_t>(0, size - request.tail_bytes());
  }
  const int64_t kept = FirstKept(fd, offset, size);
  if (kept > offset) {
    chunk.set_data("(" + std::to_string(kept - offset) + " bytes of this log are not kept)\n");
  }
  std::string bytes(static_cast<size_t>(std::min(size - kept, kMaxChunkBytes)), '\0');
  const ssize_t got = pread(fd, bytes.data(), bytes.size(), kept);
  bytes.resize(static_cast<size_t>(std::max<ssize_t>(0, got)));
  chunk.set_next_offset(kept + static_cast<int64_t>(bytes.size()));
  chunk.set_end_of_file(chunk.next_offset() >= size);
  chunk.mutable_data()->append(bytes);
}

void ReadPart(const std::string& path, const v1::ReadLogs& request, v1::LogChunk& chunk) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    chunk.set_error("cannot read " + path);
    return;
  }
  ReadPartOf(fd, request, chunk);
  close(fd);
}

void ReadReport(const std::string& job_folder, const v1::ReadLogs& request, v1::LogChunk& chunk) {
  std::string path;
  if (request.report_format() == "html") path = JoinPath(job_folder, "report.html");
  if (request.report_format() == "json") path = JoinPath(job_folder, "artifacts/report.json");
  if (path.empty()) {
    chunk.set_error("report format '" + request.report_format() +
                    "' is not known; use html or json");
  } else if (!PathExists(path)) {
    chunk.set_error("the job has no report yet; it comes after the stage evaluate");
  } else {
    ReadPart(path, request, chunk);
  }
}

}  // namespace

v1::LogChunk ReadChunk(const std::string& jobs_folder, const v1::ReadLogs& request) {
  v1::LogChunk chunk;
  chunk.set_request_id(request.request_id());
  const std::string job_folder = JoinPath(jobs_folder, request.job_uid());
  if (!IsPlainName(request.job_uid()) || !IsFolder(job_folder)) {
    chunk.set_error("this worker has no files of job " + request.job_uid());
    return chunk;
  }
  if (!request.report_format().empty()) {
    ReadReport(job_folder, request, chunk);
    return chunk;
  }
  const std::string attempts = JoinPath(job_folder, "attempts");
  const int64_t epoch = request.epoch() > 0 ? request.epoch() : NewestEpoch(attempts);
  const std::string folder = JoinPath(attempts, std::to_string(epoch));
  const auto names = ListFolder(folder);
  if (!names.ok()) {
    chunk.set_error("this worker has no files of attempt " + std::to_string(epoch) + " of job " +
                    request.job_uid());
    return chunk;
  }
  for (const std::string& name : *names) {
    if (IsLogName(name)) chunk.add_files(name);
  }
  if (request.file().empty()) {
    chunk.set_end_of_file(true);
  } else if (!IsPlainName(request.file()) || !IsLogName(request.file())) {
    chunk.set_error("'" + request.file() + "' is not a log file of an attempt");
  } else {
    ReadPart(JoinPath(folder, request.file()), request, chunk);
  }
  return chunk;
}

}  // namespace tandem::agent
