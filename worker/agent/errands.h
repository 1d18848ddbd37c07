// Errands: blocking file work off the loop's thread (looking at a user's paths, verifying
// checkpoints, reading logs).
//
// One thread, in order, at most kMaxWaiting errands. An errand gets its answer back to the loop by
// EventLoop::Post. Run is for any thread. Destroying it waits for the errand under way and drops
// the rest.
#pragma once

#include <deque>
#include <functional>
#include <thread>

#include "base/mutex.h"

namespace tandem::agent {

class Errands {
 public:
  static constexpr size_t kMaxWaiting = 1024;
  Errands() : thread_([this](const std::stop_token& stop) { Loop(stop); }) {}
  // False: too many are waiting.
  bool Run(std::function<void()> errand) {
    MutexLock lock(mu_);
    if (waiting_.size() >= kMaxWaiting) return false;
    waiting_.push_back(std::move(errand));
    changed_.notify_one();
    return true;
  }

 private:
  void Loop(const std::stop_token& stop) {
    for (;;) {
      std::function<void()> errand;
      {
        MutexLock lock(mu_);
        changed_.wait(mu_, stop, [this]() TANDEM_REQUIRES(mu_) { return !waiting_.empty(); });
        if (stop.stop_requested()) return;
        errand = std::move(waiting_.front());
        waiting_.pop_front();
      }
      errand();
    }
  }

  Mutex mu_;
  std::condition_variable_any changed_;
  std::deque<std::function<void()>> waiting_ TANDEM_GUARDED_BY(mu_);
  std::jthread thread_;  // last: it uses the others
};

}  // namespace tandem::agent
