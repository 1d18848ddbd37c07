// Ctrl-C and SIGTERM as calls instead of signal handlers.
//
// The signals are blocked in every thread that starts after construction, and one thread waits for
// them; so construct it first in main, and let child processes clear their signal mask (child.cc
// does). Without a callback the process leaves with 130 at once. Locked by mu_.
//
// StopRequest: what `run` and `sweep` make of them.
#pragma once

#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

#include "base/mutex.h"

namespace tandem::cli {

class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // Called from the waiting thread with 1 for the first signal, 2 for the second, ... Null: leave
  // at once. Waits for a call under way: afterwards the old callback is not running and never will.
  // Not to be called from a callback.
  void Set(std::function<void(int count)> callback);

 private:
  void Wait();

  sigset_t signals_;
  Mutex mu_;
  CondVar called_;
  bool calling_ TANDEM_GUARDED_BY(mu_) = false;
  std::function<void(int)> callback_ TANDEM_GUARDED_BY(mu_);
  std::thread thread_;
};

// While it lives: the first signal is remembered, the second leaves at once, and child processes
// die with us.
class StopRequest {
 public:
  explicit StopRequest(Interrupts& interrupts);
  ~StopRequest() { interrupts_.Set(nullptr); }
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  const std::atomic<bool>& asked() const { return asked_; }

 private:
  Interrupts& interrupts_;
  std::atomic<bool> asked_ = false;
};

}  // namespace tandem::cli
