// Mutex with clang's thread-safety annotations (checked with -Wthread-safety under clang; nothing
// under g++).
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define TANDEM_ANNOTATE(x) __attribute__((x))
#else
#define TANDEM_ANNOTATE(x)
#endif
#define TANDEM_GUARDED_BY(m) TANDEM_ANNOTATE(guarded_by(m))
#define TANDEM_REQUIRES(m) TANDEM_ANNOTATE(requires_capability(m))

namespace tandem {

class TANDEM_ANNOTATE(capability("mutex")) Mutex {
 public:
  void lock() TANDEM_ANNOTATE(acquire_capability()) { mutex_.lock(); }
  void unlock() TANDEM_ANNOTATE(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class TANDEM_ANNOTATE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TANDEM_ANNOTATE(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() TANDEM_ANNOTATE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits on a Mutex held by the caller.
using CondVar = std::condition_variable_any;

}  // namespace tandem
