// EventLoop: the agent's one thread of decisions. Waits for readable descriptors, closures from
// other threads, signals and the time.
//
// It runs on the process's main thread and is the only one that forks: PR_SET_PDEATHSIG fires when
// the forking thread ends. Post is for any thread; everything else is confined to the loop's.
#pragma once

#include <csignal>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"

namespace tandem::agent {

class EventLoop {
 public:
  // The signals must be blocked in every thread (BlockSignals before the first one starts).
  static void BlockSignals(const std::vector<int>& signals);
  static Result<std::unique_ptr<EventLoop>> Make(const std::vector<int>& signals);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls `on_readable` while fd has bytes or is at its end. The fd stays the caller's; unwatch
  // before closing it.
  void Watch(int fd, std::function<void()> on_readable);
  void Unwatch(int fd);
  // Any thread, also a dying one: the closure runs on the loop, after those posted before.
  void Post(std::function<void()> closure);
  // Until Stop. on_signal gets each signal's number; on_tick runs at least every tick_ms.
  void Run(const std::function<void(int)>& on_signal, const std::function<void()>& on_tick,
           int64_t tick_ms);
  void Stop() { stopped_ = true; }

 private:
  EventLoop(int signal_fd, int wake_fd) : signal_fd_(signal_fd), wake_fd_(wake_fd) {}
  void Wait(int64_t tick_ms, const std::function<void(int)>& on_signal);
  void RunPosted();

  const int signal_fd_;
  const int wake_fd_;
  bool stopped_ = false;
  std::map<int, std::shared_ptr<std::function<void()>>>
      watched_;  // shared: a callback may unwatch itself
  Mutex mu_;
  std::vector<std::function<void()>> posted_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::agent
