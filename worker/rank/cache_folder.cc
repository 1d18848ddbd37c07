#include "worker/rank/cache_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/files.h"
#include "base/log.h"

namespace tandem {
namespace {

constexpr int64_t kLeftOverMs = int64_t{24} * 3600 * 1000;

struct CacheEntry {
  std::string name;
  int64_t used_ms = 0;
  int64_t bytes = 0;
};

int OpenFolder(const std::string& folder) {
  return open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int64_t ModifiedMs(const std::string& folder) {
  struct stat found {};
  if (stat(folder.c_str(), &found) != 0) return 0;
  return int64_t{found.st_mtim.tv_sec} * 1000 + found.st_mtim.tv_nsec / 1'000'000;
}

// What can be counted of a folder that others may be removing.
int64_t BytesIn(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  int64_t bytes = 0;
  for (fs::recursive_directory_iterator file(folder, error), end; !error && file != end;
       file.increment(error)) {
    std::error_code gone;
    const bool is_file = file->is_regular_file(gone);
    const auto size = is_file ? file->file_size(gone) : 0;
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

bool IsLeftOver(const std::string& name) {
  return name.find(".tmp-") != std::string::npos;
}

// Whether the path still names the folder that was opened.
bool IsAt(int descriptor, const std::string& folder) {
  struct stat opened {
  }, named{};
  return fstat(descriptor, &opened) == 0 && stat(folder.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

// False: somebody reads it.
bool RemoveEntry(const std::string& cache, const std::string& name) {
  const std::string folder = JoinPath(cache, name);
  const int descriptor = OpenFolder(folder);
  if (descriptor < 0) return true;  // another job was faster
  const bool alone = flock(descriptor, LOCK_EX | LOCK_NB) == 0;
  if (alone) {
    // Out of sight first: half an entry must not be found.
    const std::string aside = folder + ".tmp-removed-" + std::to_string(getpid());
    Status status = IsLeftOver(name) ? RemoveTree(folder) : RenameDurably(folder, aside);
    if (status.ok() && !IsLeftOver(name)) status = RemoveTree(aside);
    Log(status.ok() ? LogLevel::kInfo : LogLevel::kWarning, "cache_entry_removed",
        {{"folder", folder}, {"status", status.ToString()}});
  }
  close(descriptor);
  return alone;
}

}  // namespace

FolderLease::FolderLease(const std::string& folder) : descriptor_(OpenFolder(folder)) {
  if (descriptor_ < 0) return;
  // Only the removal of this very entry holds it alone; then there is nothing to wait for.
  if (flock(descriptor_, LOCK_SH | LOCK_NB) != 0 || !IsAt(descriptor_, folder)) {
    close(std::exchange(descriptor_, -1));
    return;
  }
  futimens(descriptor_, nullptr);
}

FolderLease::~FolderLease() {
  if (descriptor_ >= 0) close(descriptor_);
}

FolderLease::FolderLease(FolderLease&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLease& FolderLease::operator=(FolderLease&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void PruneCache(const std::string& cache, int64_t max_bytes, const std::string& kept) {
  const Result<std::vector<std::string>> names = ListFolder(cache);
  if (!names.ok()) return;
  std::vector<CacheEntry> entries;
  int64_t bytes = 0;
  for (const std::string& name : *names) {
    const std::string folder = JoinPath(cache, name);
    if (!IsFolder(folder)) continue;
    const CacheEntry entry{name, ModifiedMs(folder), BytesIn(folder)};
    if (!IsLeftOver(name)) {
      bytes += entry.bytes;
      if (name != kept) entries.push_back(entry);
    } else if (Clock::System().WallMs() - entry.used_ms > kLeftOverMs) {
      RemoveEntry(cache, name);
    }
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const CacheEntry& a, const CacheEntry& b) { return a.used_ms < b.used_ms; });
  for (const CacheEntry& entry : entries) {
    if (bytes <= max_bytes) return;
    if (RemoveEntry(cache, entry.name)) bytes -= entry.bytes;
  }
}

}  // namespace tandem
