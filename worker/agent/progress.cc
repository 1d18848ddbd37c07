#include "worker/agent/progress.h"

#include <algorithm>

namespace tandem::agent {

Progress::Progress(int64_t training_stages, int64_t now_ms) : moved_ms_(now_ms) {
  value_.set_stage("prepare");
  value_.set_stage_count(training_stages + kStagesBesidesTraining);
}

void Progress::Prepared(int64_t documents, int64_t now_ms) {
  value_.set_step(documents);
  moved_ms_ = now_ms;
}

bool Progress::Take(const RankMessage& message, int64_t now_ms) {
  const int64_t stage_index = message.stage_index + 1;
  const bool new_stage = stage_index != value_.stage_index() || message.stage != value_.stage();
  const bool moved = new_stage || message.step != value_.step();
  if (new_stage) {  // nothing of the former stage is left
    const int64_t count = value_.stage_count();
    const int64_t checkpoint_step = value_.checkpoint_step();
    value_.Clear();
    value_.set_stage_count(count);
    value_.set_checkpoint_step(checkpoint_step);
  }
  value_.set_stage(message.stage);
  value_.set_stage_index(stage_index);
  value_.set_step(message.step);
  value_.set_steps(message.steps);
  const auto metric = [&message](const char* name, double otherwise) {
    const auto found = message.metrics.find(name);
    return found == message.metrics.end() ? otherwise : found->second;
  };
  value_.set_loss(metric("loss", value_.loss()));
  value_.set_tokens_per_second(metric("tokens_per_second", value_.tokens_per_second()));
  value_.set_step_seconds(metric("step_seconds", value_.step_seconds()));
  const auto left = static_cast<double>(std::max<int64_t>(0, message.steps - message.step));
  value_.set_eta_seconds(left * value_.step_seconds());
  if (moved) moved_ms_ = now_ms;
  return moved;
}

void Progress::Checkpointed(int64_t step, int64_t now_ms) {
  value_.set_checkpoint_step(step);
  checkpoint_ms_ = now_ms;
  moved_ms_ = now_ms;
}

bool Progress::is_training() const {
  return value_.stage_index() >= 1 &&
         value_.stage_index() <= value_.stage_count() - kStagesBesidesTraining;
}

}  // namespace tandem::agent
