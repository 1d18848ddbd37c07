// Ticker: calls one function every so often, on a thread of its own, until destroyed.
// For what must happen although nothing arrives: deadlines, progress marks, log readers that
// follow.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace tandem::service {

class Ticker {
 public:
  // `tick` must not block for long; the pause follows each call.
  Ticker(std::chrono::milliseconds period, std::function<void()> tick)
      : period_(period),
        tick_(std::move(tick)),
        thread_([this](std::stop_token stop) { Run(stop); }) {}

 private:
  void Run(const std::stop_token& stop) {
    std::mutex mu;
    std::condition_variable_any wake;
    std::unique_lock lock(mu);
    while (!wake.wait_for(lock, stop, period_, [] { return false; }) && !stop.stop_requested())
      tick_();
  }

  const std::chrono::milliseconds period_;
  const std::function<void()> tick_;
  std::jthread thread_;
};

}  // namespace tandem::service
