#include "worker/rank/progress.h"

#include <chrono>
#include <utility>

namespace tandem {

ProgressReporter::ProgressReporter(EventChannel& channel, int64_t interval_ms)
    : channel_(channel), interval_ms_(interval_ms) {
  thread_ = std::jthread([this] {
    bool stopping = false;
    while (!stopping) {
      {
        MutexLock lock(mu_);
        stopping = changed_.wait_for(mu_, std::chrono::milliseconds(interval_ms_),
                                     [this] { return stopping_; });
      }
      SendState();
    }
  });
}

ProgressReporter::~ProgressReporter() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.notify_all();
}

void ProgressReporter::Update(ProgressState state) {
  MutexLock lock(mu_);
  state_ = std::move(state);
}

void ProgressReporter::SendState() {
  RankMessage message;
  message.type = "progress";
  {
    MutexLock lock(mu_);
    message.stage = state_.stage;
    message.stage_index = state_.stage_index;
    message.step = state_.step;
    message.steps = state_.steps;
    message.metrics = state_.metrics;
  }
  if (!message.stage.empty()) channel_.Send(std::move(message));
}

}  // namespace tandem
