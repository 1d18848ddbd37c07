// A folder of cache entries, each a folder of its own, kept below a size: what was not used for
// longest goes first.
//
// An entry's time of last use is its folder's modification time: made when it was stored, set anew
// by FolderLease. Whoever reads an entry holds a lease, a shared flock(2) on its folder; Prune
// takes only what it can lock alone, moves it out of sight and removes it, so nothing is deleted
// under a reader, and a reader that comes too late finds nothing: a miss. Locks are released by the
// kernel when a process dies. Several jobs of a machine may prune at once; where a file system does
// not know flock, nothing is removed. Blocking files; any thread.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

class FolderLease {
 public:
  FolderLease() = default;
  // Locks the folder and marks it as used now. Not held: it is not there.
  explicit FolderLease(const std::string& folder);
  ~FolderLease();
  FolderLease(FolderLease&& other) noexcept;
  FolderLease& operator=(FolderLease&& other) noexcept;
  bool held() const { return descriptor_ >= 0; }

 private:
  int descriptor_ = -1;
};

// Removes entries of `cache`, least recently used first, until the rest has at most max_bytes;
// never `kept`, the name of an entry. Also what interrupted writers and removals left behind
// ("*.tmp-*") untouched for a day. Failures are logged: a cache that is too large fails no job.
void PruneCache(const std::string& cache, int64_t max_bytes, const std::string& kept);

}  // namespace tandem
