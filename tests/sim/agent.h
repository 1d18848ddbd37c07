// Agent: a model of tandem-worker. Keeps the promises that the core relies on (service's contract):
// it knows each epoch and runs it once, names every live attempt in each heartbeat and
// registration, repeats an end until it is acknowledged, and starts with nothing alive. For the
// rest anything happens to it: crashes, freezes, broken streams, failing ranks.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "coordinator/core/effect.h"
#include "coordinator/core/event.h"
#include "tests/sim/network.h"
#include "tests/sim/truth.h"

namespace tandem::sim {

class Agent {
 public:
  struct Outlets {
    std::function<void(core::Event)> post;  // to the coordinator's process
    std::function<bool()> coordinator_is_up;
  };
  struct Size {
    int64_t slots = 1;
    int64_t gpus = 0;
  };
  Agent(std::string name, Size size, Timeline& timeline, Rng& rng, Network& network, Truth& truth,
        Outlets outlets);

  void Start();
  void Crash();
  // Deaf and mute, while the ranks go on.
  void Freeze(int64_t ms);
  void BreakStream() { network_.Break(stream_); }
  void SetCalm();
  // From the coordinator, on the stream it names.
  void Receive(const core::Command& command);

  const std::string& name() const { return name_; }
  bool is_idle() const { return runs_.empty() && outbox_.empty(); }

 private:
  struct Run {
    Size size;
    bool running = false;
    bool is_stubborn = false;  // takes long to die
    int64_t step = 0;
  };
  // Runs later, unless the agent has been restarted; waits while frozen.
  void After(int64_t delay_ms, std::function<void()> action);
  void Reconnect();
  void StreamLost(core::ConnectionId stream);
  void Register();
  void Beat();
  void Send(core::Event event);
  void SendTwiceAtTimes(const core::Event& event);

  void On(const core::LaunchAttempt& launch);
  void On(const core::StopAttempt& stop);
  void On(const core::FenceAttempts& fence);
  void On(const core::AckAttempt& ack) { outbox_.erase(ack.attempt); }
  void On(const core::AckHeartbeat&) {}
  void On(const core::ConfirmRegistration&) {}
  void On(const core::RefuseConnection&) { network_.Break(stream_); }

  void Train(const core::AttemptRef& attempt);
  void StopSoon(const core::AttemptRef& attempt, core::Cause cause);
  void End(const core::AttemptRef& attempt, core::Cause cause);
  core::Cause ChooseCause();

  const std::string name_;
  const Size size_;
  Timeline& timeline_;
  Rng& rng_;
  Network& network_;
  Truth& truth_;
  const Outlets outlets_;
  bool is_calm_ = false;
  // The process.
  bool is_up_ = false;
  int64_t incarnation_ = 0;
  int64_t frozen_until_ms_ = 0;
  core::ConnectionId stream_ = 0;
  std::deque<core::Command> inbox_;
  std::map<core::AttemptRef, Run> runs_;
  std::map<core::AttemptRef, core::Cause> outbox_;  // on disk: it outlives the process
  std::map<core::JobUid, core::Epoch> newest_;      // launched or fenced: no older one may start
};

}  // namespace tandem::sim
