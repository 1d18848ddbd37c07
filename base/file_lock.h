// FileLock: one process at a time in a folder. flock(2) on a file that holds its owner's pid, for
// whoever is refused; let go when the object or the process ends. Confined to its owner.
#pragma once

#include <string>

#include "base/status.h"

namespace tandem {

class FileLock {
 public:
  FileLock() = default;
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // kFailedPrecondition where another process holds it; *owner is its pid then, or "?". Once.
  Status Take(const std::string& path, std::string* owner);

 private:
  int descriptor_ = -1;
};

}  // namespace tandem
