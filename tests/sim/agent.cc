#include "tests/sim/agent.h"

#include <algorithm>
#include <utility>

namespace tandem::sim {

constexpr int64_t kBeatMs = 2'000;
constexpr int64_t kSteps = 12;

Agent::Agent(std::string name, Size size, Timeline& timeline, Rng& rng, Network& network,
             Truth& truth, Outlets outlets)
    : name_(std::move(name)),
      size_(size),
      timeline_(timeline),
      rng_(rng),
      network_(network),
      truth_(truth),
      outlets_(std::move(outlets)) {}

void Agent::After(int64_t delay_ms, std::function<void()> action) {
  timeline_.After(delay_ms, [this, incarnation = incarnation_, action = std::move(action)] {
    if (!is_up_ || incarnation != incarnation_) return;
    if (timeline_.now_ms() < frozen_until_ms_) {
      After(frozen_until_ms_ - timeline_.now_ms(), action);
    } else {
      action();
    }
  });
}

void Agent::Start() {
  if (is_up_) return;
  is_up_ = true;
  ++incarnation_;
  frozen_until_ms_ = 0;
  Reconnect();
  After(kBeatMs, [this] { Beat(); });
}

void Agent::Crash() {
  if (!is_up_) return;
  is_up_ = false;
  ++truth_.agent_crashes;
  runs_.clear();
  newest_.clear();
  inbox_.clear();
  network_.Break(stream_);
  stream_ = 0;
  timeline_.After(rng_.Between(300, 20'000), [this] { Start(); });
}

void Agent::Freeze(int64_t ms) {
  frozen_until_ms_ = timeline_.now_ms() + ms;
}

void Agent::SetCalm() {
  is_calm_ = true;
  frozen_until_ms_ = 0;
  Start();
}

void Agent::Reconnect() {
  if (!outlets_.coordinator_is_up()) {
    After(rng_.Between(200, 2'000), [this] { Reconnect(); });
    return;
  }
  Network::Ends ends;
  ends.agent = [this](core::ConnectionId stream) { StreamLost(stream); };
  ends.coordinator = [this](core::ConnectionId stream) {
    outlets_.post(core::WorkerDisconnected{name_, stream});
  };
  stream_ = network_.Open(std::move(ends));
  Register();
}

void Agent::StreamLost(core::ConnectionId stream) {
  if (!is_up_ || stream != stream_) return;
  stream_ = 0;
  After(rng_.Between(50, 1'000), [this] {
    if (stream_ == 0) Reconnect();
  });
}

void Agent::Register() {
  core::WorkerRegistered event;
  event.worker = name_;
  event.connection = stream_;
  event.incarnation = name_ + "-" + std::to_string(incarnation_);
  event.slots = size_.slots;
  event.gpus = size_.gpus;
  for (const auto& [attempt, run] : runs_) event.live.push_back(attempt);
  for (const auto& [attempt, cause] : outbox_) event.ended.push_back(attempt);
  Send(event);
}

void Agent::Beat() {
  if (stream_ != 0) {
    core::HeartbeatReceived beat{name_, stream_, {}, 0};
    for (const auto& [attempt, run] : runs_) {
      core::Progress progress;
      progress.stage = "finetune";
      progress.step = run.step;
      beat.attempts.push_back({attempt, run.running, progress, run.running});
    }
    Send(beat);
    for (const auto& [attempt, cause] : outbox_) {
      Send(core::AttemptEnded{name_, stream_, attempt, cause, "", nullptr, "", ""});
    }
  }
  After(kBeatMs, [this] { Beat(); });
}

void Agent::Send(core::Event event) {
  network_.Send(stream_, /*up=*/true,
                [this, event = std::move(event)]() mutable { outlets_.post(std::move(event)); });
}

void Agent::SendTwiceAtTimes(const core::Event& event) {
  Send(event);
  if (!is_calm_ && rng_.Chance(100)) Send(event);
}

// Through an inbox, so that a thaw does not change the order.
void Agent::Receive(const core::Command& command) {
  inbox_.push_back(command);
  After(0, [this] {
    const core::Command next = std::move(inbox_.front());
    inbox_.pop_front();
    if (next.connection != stream_) return;
    std::visit([this](const auto& what) { On(what); }, next.what);
  });
}

void Agent::On(const core::LaunchAttempt& launch) {
  core::Epoch& newest = newest_[launch.attempt.job];
  if (launch.attempt.epoch <= newest) return;  // known, ended or fenced
  newest = launch.attempt.epoch;
  const Size size{launch.slots, launch.spec->starts_with("cuda") ? launch.slots : 0};
  Size in_use = size;
  for (const auto& [attempt, run] : runs_) {
    in_use.slots += run.size.slots;
    in_use.gpus += run.size.gpus;
  }
  const auto check = [this](const char* what, int64_t used, int64_t all) {
    if (used <= all) return;
    truth_.broken.push_back("I2: " + name_ + " has " + std::to_string(all) + " " + what +
                            " and was told to use " + std::to_string(used));
  };
  check("slots", in_use.slots, size_.slots);
  check("GPUs", in_use.gpus, size_.gpus);
  runs_[launch.attempt] = {.size = size, .is_stubborn = rng_.Chance(200)};
  After(rng_.Between(50, 2'000), [this, attempt = launch.attempt] {
    const auto run = runs_.find(attempt);
    if (run == runs_.end()) return;
    run->second.running = true;
    SendTwiceAtTimes(core::AttemptReported{name_, stream_, {attempt, true, {}, false}});
    Train(attempt);
  });
}

void Agent::On(const core::StopAttempt& stop) {
  const bool is_kill = stop.kind == core::StopKind::kKill;
  StopSoon(stop.attempt, is_kill ? core::Cause::kFenced : core::Cause::kStopped);
}

void Agent::On(const core::FenceAttempts& fence) {
  core::Epoch& newest = newest_[fence.job];
  newest = std::max(newest, fence.epoch - 1);
  for (const auto& [attempt, run] : runs_) {
    if (attempt.job == fence.job && attempt.epoch < fence.epoch) {
      StopSoon(attempt, core::Cause::kFenced);
    }
  }
}

void Agent::StopSoon(const core::AttemptRef& attempt, core::Cause cause) {
  const auto run = runs_.find(attempt);
  if (run == runs_.end()) return;
  const bool is_stuck = run->second.is_stubborn && !is_calm_;
  After(is_stuck ? 90'000 : rng_.Between(10, 1'000),
        [this, attempt, cause] { End(attempt, cause); });
}

void Agent::Train(const core::AttemptRef& attempt) {
  const auto run = runs_.find(attempt);
  if (run == runs_.end()) return;
  const int64_t step = ++run->second.step;
  if (step % 4 == 0) {
    SendTwiceAtTimes(core::CheckpointCommitted{
        name_, stream_, attempt, 1, step,
        "e" + std::to_string(attempt.epoch) + "/step-" + std::to_string(step), "", 1});
  }
  if (step >= kSteps || (!is_calm_ && rng_.Chance(30))) {
    End(attempt, step >= kSteps ? core::Cause::kOk : ChooseCause());
  } else {
    After(rng_.Between(100, 1'500), [this, attempt] { Train(attempt); });
  }
}

core::Cause Agent::ChooseCause() {
  switch (rng_.Between(0, 7)) {
    case 0:
      return core::Cause::kOom;
    case 1:
      return core::Cause::kLaunchFailed;
    case 2:
      return core::Cause::kStorage;
    case 3:
      return core::Cause::kHang;
    case 4:
      return core::Cause::kData;
    default:
      return core::Cause::kRankExit;
  }
}

void Agent::End(const core::AttemptRef& attempt, core::Cause cause) {
  if (runs_.erase(attempt) == 0) return;
  truth_.ended[attempt] = cause;
  outbox_[attempt] = cause;
  SendTwiceAtTimes(core::AttemptEnded{name_, stream_, attempt, cause, "", nullptr, "", ""});
}

}  // namespace tandem::sim
