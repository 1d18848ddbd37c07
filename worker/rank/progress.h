// Progress: what the agent hears each second, from a thread that only reads what training wrote
// down last.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "worker/rank/event_channel.h"

namespace tandem {

struct ProgressState {
  std::string stage;  // empty: nothing to tell yet
  int64_t stage_index = 0;
  int64_t step = 0;
  int64_t steps = 0;
  std::map<std::string, double> metrics;
};

// Update: training thread. The channel outlives it.
class ProgressReporter {
 public:
  explicit ProgressReporter(EventChannel& channel, int64_t interval_ms = 1000);
  ~ProgressReporter();  // sends the last state once more
  ProgressReporter(const ProgressReporter&) = delete;
  ProgressReporter& operator=(const ProgressReporter&) = delete;
  void Update(ProgressState state);

 private:
  void SendState();

  EventChannel& channel_;
  const int64_t interval_ms_;
  Mutex mu_;
  CondVar changed_;
  ProgressState state_ TANDEM_GUARDED_BY(mu_);
  bool stopping_ TANDEM_GUARDED_BY(mu_) = false;
  std::jthread thread_;
};

}  // namespace tandem
