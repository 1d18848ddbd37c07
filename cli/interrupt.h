// Ctrl-C and SIGTERM as calls instead of signal handlers.
//
// The signals are blocked in every thread that starts after construction, and one thread waits for
// them; so construct it first in main, and let child processes clear their signal mask (child.cc
// does). Without a callback the process leaves with 130 at once. Locked by mu_.
#pragma once

#include <signal.h>

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
  // at once.
  void Set(std::function<void(int count)> callback);

 private:
  void Wait();

  sigset_t signals_;
  Mutex mu_;
  std::function<void(int)> callback_ TANDEM_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace tandem::cli
