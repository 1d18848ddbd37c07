// The cluster inside `tandem run` and `tandem sweep`: a coordinator and one worker on loopback,
// with all their state below the work folder. Same binaries and code path as a real cluster. They
// live in their own sessions, die with this process, and are started again when they crash.
//
// Life: Open, StartCoordinator, submit, StartWorker, Tend every 100 ms or so until the jobs have
// ended, destroy. Confined to the main thread: children die with the thread that started them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/file_lock.h"
#include "base/status.h"
#include "cli/child.h"

namespace tandem::cli {

class EmbeddedCluster {
 public:
  // Makes the work folder and takes its lock, <work>/run.lock; nothing is started yet.
  // kFailedPrecondition names the process that holds it. full_disk_seconds: how long Tend bears a
  // full disk.
  static Result<std::unique_ptr<EmbeddedCluster>> Open(const std::string& work,
                                                       int64_t full_disk_seconds);
  // Stops both: SIGTERM, at most 10 s of waiting each, then SIGKILL.
  ~EmbeddedCluster();

  // Blocks until it serves (at most 30 s) or *stop; then server() is its address, which it keeps
  // across restarts.
  Status StartCoordinator(const std::atomic<bool>& stop);
  // threads_per_slot 0: the cores are shared out. Fine if it runs already.
  Status StartWorker(int64_t slots, int64_t threads_per_slot);
  // Restarts what has crashed; the error says what cannot be kept running, or that the disk has
  // been full for too long. Once stop is asked, the worker is told to save a checkpoint and leave,
  // and is not restarted. `note` gets the sentences that say so. False: the worker has left, or has
  // had its time.
  Result<bool> Tend(bool stop_asked, const std::function<void(const std::string&)>& note);

  const std::string& work() const { return work_; }  // absolute
  const std::string& server() const { return server_; }

 private:
  EmbeddedCluster(std::string work, std::string bin, int64_t full_disk_seconds);
  std::string State() const { return work_ + "/coordinator"; }
  Status CheckRoom(int64_t now_ms, const std::function<void(const std::string&)>& note);
  bool IsWorkerRunning() { return worker_ && worker_->IsRunning(); }

  const std::string work_;
  const std::string bin_;  // the folder with tandem-coordinator and tandem-worker
  const int64_t full_disk_seconds_;
  FileLock lock_;
  std::string server_;
  std::unique_ptr<Child> coordinator_;
  std::unique_ptr<Child> worker_;
  int64_t drain_deadline_ms_ = 0;  // 0: not draining
  int64_t full_since_ms_ = 0;      // 0: the disk has room
};

// The folder of this executable.
Result<std::string> OwnFolder();

// The log that says most about a failed job of this work folder: the newest attempt's rank-0.err,
// mpirun.err, prepare.err, whichever has text first; else the attempt's folder. "": none has run.
std::string LogOfFailure(const std::string& work, const std::string& uid);

}  // namespace tandem::cli
