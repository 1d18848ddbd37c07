// The cluster inside `tandem run`: a coordinator and one worker on loopback, with all their state
// below the work folder. Same binaries and code path as a real cluster. They live in their own
// sessions, die with this process, and are started again when they crash.
//
// Confined to the main thread: children die with the thread that started them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "cli/child.h"

namespace tandem::cli {

// One run per work folder: the file <work>/run.lock, held by flock(2) as long as the object lives.
class WorkLock {
 public:
  WorkLock() = default;
  ~WorkLock();
  WorkLock(const WorkLock&) = delete;
  WorkLock& operator=(const WorkLock&) = delete;
  // kFailedPrecondition names the process that holds it.
  Status Take(const std::string& work);

 private:
  int descriptor_ = -1;
};

class EmbeddedCluster {
 public:
  // work: absolute. bin: the folder with tandem-coordinator and tandem-worker.
  EmbeddedCluster(std::string work, std::string bin);

  // Blocks until it serves (at most 30 s) or *stop; then server() is its address, which it keeps
  // across restarts.
  Status StartCoordinator(const std::atomic<bool>& stop);
  Status StartWorker(int64_t slots, int64_t threads_per_slot);
  // Call every 100 ms or so: restarts what has crashed. The error says what cannot be kept running.
  Status KeepRunning();
  // SIGTERM to the worker, which checkpoints its job; from then on it is not restarted.
  void DrainWorker();
  bool IsWorkerRunning() { return worker_ && worker_->IsRunning(); }
  // SIGTERM, at most 10 s of waiting each, then SIGKILL.
  void Stop();

  const std::string& server() const { return server_; }

 private:
  std::string State() const { return work_ + "/coordinator"; }

  const std::string work_;
  const std::string bin_;
  std::string server_;
  std::unique_ptr<Child> coordinator_;
  std::unique_ptr<Child> worker_;
  bool draining_ = false;
};

// Cores that this process may use.
int64_t UsableCores();

// The folder of this executable.
Result<std::string> OwnFolder();

// The end of the log that says most about a failed job of this work folder: the newest attempt's
// prepare.err, rank-0.err, mpirun.err, whichever has text first. "path:\n  line\n...", or "".
std::string FailedLog(const std::string& work, const std::string& uid);

}  // namespace tandem::cli
