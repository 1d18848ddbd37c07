// Coordinator: the real core and its loop over a memory store, in a process that may crash at every
// effect boundary: before the commit, after it, and between any two effects that are released.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "coordinator/core/event.h"
#include "coordinator/core/invariants.h"
#include "coordinator/core/state.h"
#include "coordinator/store/memory_store.h"
#include "tests/sim/rng.h"
#include "tests/sim/timeline.h"
#include "tests/sim/truth.h"

namespace tandem::sim {

class Coordinator {
 public:
  struct Outlets {
    std::function<void(const core::Command&)> command;
    std::function<void(const core::Reply&)> reply;
    std::function<void()> crashed;  // all streams break
  };
  Coordinator(Timeline& timeline, Rng& rng, Truth& truth, Sabotage sabotage)
      : timeline_(timeline), rng_(rng), truth_(truth), sabotage_(sabotage) {}

  void Connect(Outlets outlets) { outlets_ = std::move(outlets); }
  void Start();
  void Crash();
  // Dropped when the process is down.
  void Post(core::Event event);
  bool is_up() const { return is_up_; }
  const core::State& state() const { return state_; }
  const store::Rows& disk() const { return *disk_; }
  // No more crashes or failing commits.
  void SetCalm() { is_calm_ = true; }

 private:
  void PlanDrain();
  void PlanTick();
  void Drain();
  core::Effects Step(core::Event event);
  void Check(const core::Effects& effects);
  bool Commit(const std::vector<core::Effects>& batch);
  void Release(const std::vector<core::Effects>& batch);
  bool Dies(int per_ten_thousand);
  core::Now now() const { return {timeline_.now_ms(), 1'700'000'000'000 + timeline_.now_ms()}; }

  Timeline& timeline_;
  Rng& rng_;
  Truth& truth_;
  const Sabotage sabotage_;
  Outlets outlets_;
  bool is_calm_ = false;
  std::shared_ptr<store::Rows> disk_ = std::make_shared<store::Rows>();
  // The process.
  bool is_up_ = false;
  int64_t process_ = 0;
  std::unique_ptr<store::MemoryStore> store_;
  core::State state_;
  core::HistoryChecker history_;
  std::vector<core::Event> queue_;
  bool drain_planned_ = false;
};

}  // namespace tandem::sim
