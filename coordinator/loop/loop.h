// Loop: the state thread. Takes events from a bounded queue, lets the core decide, commits once per
// batch, and only then lets anything out: rows to readers, replies, commands.
//
// Why one thread: the core is pure and needs no locks; SQLite's one writer is the same thread, so a
// commit is a plain call, and what arrives while it syncs becomes the next batch (group commit).
// Failure: after a failed commit memory is ahead of the disk. Its effects are dropped, everybody
// waiting and everybody later gets UNAVAILABLE, and healthy() is false. Every kRecoveryMs the store
// is tried; once it takes writes again, the state is loaded anew, the agents' streams are ended,
// and they register as after a restart. Any thread may Post and Ask; replies and the sink run on
// the state thread and must not block.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "coordinator/core/step.h"
#include "coordinator/loop/metrics.h"
#include "coordinator/store/store.h"

namespace tandem {

// Where the durable consequences go. Runs on the state thread.
class EffectSink {
 public:
  virtual ~EffectSink() = default;
  // Once, before anything else: the state as loaded, and the newest events of the store.
  virtual void Load(const core::State& state, const std::vector<core::JobEvent>& events) = 0;
  // One committed step. First what readers see, then (after the replies) Command for each command.
  virtual void Publish(const core::State& state, const core::Effects& effects) = 0;
  virtual void Command(const core::Command& command) = 0;
};

class Loop {
 public:
  static constexpr size_t kMaxQueued = 4096;
  static constexpr size_t kMaxBatch = 64;
  static constexpr int64_t kTickMs = 100;
  static constexpr int64_t kRecoveryMs = 1'000;
  using ReplyFn = std::function<void(const core::Reply&)>;

  Loop(store::Store& store, EffectSink& sink, Metrics& metrics, const Clock& clock);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Loads the store, steps StoreLoaded, and starts the thread. Once.
  Status Start(const core::Limits& limits);
  // Answers whoever waits with UNAVAILABLE and ends the thread. Idempotent.
  void Stop();

  // An event that nobody waits for. RESOURCE_EXHAUSTED when the queue is full, UNAVAILABLE when
  // stopped or failed.
  Status Post(core::Event event);
  // An event that gets one Reply; `with_token` builds it. When Ask fails, `reply` is not called.
  Status Ask(const std::function<core::Event(core::RequestToken)>& with_token, ReplyFn reply);
  // The store takes writes.
  bool healthy() const { return healthy_.load(); }
  // Why it does not; "" while it does.
  std::string store_failure() const;

 private:
  struct Waiting {
    core::Event event;
    core::RequestToken token = 0;
    ReplyFn reply;
  };
  Status Enqueue(Waiting waiting);
  // What callers are told while the store takes no writes.
  Status Refusal() const TANDEM_REQUIRES(mu_);
  void Run(const std::stop_token& stop);
  // Up to kMaxBatch events; waits for the first one or the next tick.
  std::vector<Waiting> TakeBatch(const std::stop_token& stop);
  void StepAndRelease(std::vector<Waiting> batch);
  // The state as the store has it; what is to be shown of that.
  Result<core::Effects> LoadState(store::Contents& contents, const core::Limits& limits);
  void Fail(const Status& status);
  void TryToRecover();
  Status Reload();
  // Their commands were dropped, and the state will not know their streams.
  void DisconnectAgents();
  Status Commit(const std::vector<core::Effects>& steps);
  void Release(const core::Effects& effects, std::map<core::RequestToken, ReplyFn>& replies);
  core::Now Now() const;

  store::Store& store_;
  EffectSink& sink_;
  Metrics& metrics_;
  const Clock& clock_;
  core::State state_;             // confined to the state thread once started
  int64_t next_tick_ms_ = 0;      // the same
  int64_t stale_counted_ = 0;     // the same
  core::Revision shown_ = 0;      // the same: the newest event that was published
  int64_t next_recovery_ms_ = 0;  // the same
  std::atomic<bool> healthy_{true};
  mutable Mutex mu_;
  CondVar arrived_;
  std::deque<Waiting> queue_ TANDEM_GUARDED_BY(mu_);
  core::RequestToken next_token_ TANDEM_GUARDED_BY(mu_) = 1;
  bool stopped_ TANDEM_GUARDED_BY(mu_) = false;
  Status failure_ TANDEM_GUARDED_BY(mu_);  // the store's; not OK: nothing is taken now
  std::jthread thread_;
};

}  // namespace tandem
