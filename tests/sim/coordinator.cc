#include "tests/sim/coordinator.h"

#include <algorithm>
#include <utility>

#include "coordinator/core/step.h"

namespace tandem::sim {
namespace {

constexpr size_t kMaxBatch = 64;
constexpr int64_t kTickMs = 200;

// Causes that the coordinator gives without a word of the agent.
bool IsAssumed(core::Cause cause) {
  return cause == core::Cause::kNodeLost || cause == core::Cause::kFenced;
}

}  // namespace

void Coordinator::Start() {
  is_up_ = true;
  ++process_;
  store_ = std::make_unique<store::MemoryStore>(disk_);
  state_ = {};
  queue_.clear();
  drain_planned_ = false;
  const core::StoreLoaded loaded = store_->Load(1'000)->loaded;
  core::Step(state_, loaded, now());
  history_.Restart(state_);
  PlanTick();
}

void Coordinator::Crash() {
  if (!is_up_) return;
  is_up_ = false;
  ++truth_.coordinator_crashes;
  outlets_.crashed();
  timeline_.After(rng_.Between(100, 15'000), [this] {
    if (!is_up_) Start();
  });
}

void Coordinator::Post(core::Event event) {
  if (!is_up_) return;
  queue_.push_back(std::move(event));
  PlanDrain();
}

void Coordinator::PlanDrain() {
  if (std::exchange(drain_planned_, true)) return;
  timeline_.After(rng_.Between(0, 2), [this, process = process_] {
    if (is_up_ && process == process_) Drain();
  });
}

void Coordinator::PlanTick() {
  timeline_.After(kTickMs, [this, process = process_] {
    if (!is_up_ || process != process_) return;
    Post(core::Ticked{});
    PlanTick();
  });
}

bool Coordinator::Dies(int per_ten_thousand) {
  if (is_calm_ || rng_.Between(0, 9'999) >= per_ten_thousand) return false;
  Crash();
  return true;
}

void Coordinator::Drain() {
  drain_planned_ = false;
  const size_t size = std::min(queue_.size(), kMaxBatch);
  std::vector<core::Effects> batch;
  for (size_t i = 0; i < size; ++i) batch.push_back(Step(std::move(queue_[i])));
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(size));
  if (!queue_.empty()) PlanDrain();
  if (sabotage_ == Sabotage::kCommandBeforeCommit) Release(batch);
  if (!is_up_ || Dies(10) || !Commit(batch) || Dies(10)) return;
  if (sabotage_ != Sabotage::kCommandBeforeCommit) Release(batch);
}

core::Effects Coordinator::Step(core::Event event) {
  auto* end = std::get_if<core::AttemptEnded>(&event);
  if (sabotage_ == Sabotage::kAcceptStaleEnds && end != nullptr) {
    const auto job = state_.jobs.find(end->attempt.job);
    if (job != state_.jobs.end()) end->attempt.epoch = job->second.epoch;
  }
  core::Effects effects = core::Step(state_, event, now());
  ++truth_.steps;
  truth_.trace.Add(static_cast<int64_t>(core::EffectsHash(effects)));
  Check(effects);
  if (sabotage_ == Sabotage::kForgetRequests) effects.persist.requests.clear();
  if (sabotage_ == Sabotage::kFreeFencedSlots) {
    for (auto& [name, worker] : state_.workers) {
      std::erase_if(worker.occupants, [](const auto& entry) { return !entry.second.owned; });
    }
  }
  return effects;
}

void Coordinator::Check(const core::Effects& effects) {
  const auto add = [this](const std::vector<std::string>& broken) {
    truth_.broken.insert(truth_.broken.end(), broken.begin(), broken.end());
  };
  add(history_.Check(state_, effects));
  add(core::CheckInvariants(state_, now()));
  for (const core::JobEvent& event : effects.persist.events) {
    truth_.reclaimed += event.kind == "reclaimed" ? 1 : 0;
  }
  for (const core::Job& job : effects.persist.jobs) {
    if (job.attempt.state != core::AttemptState::kEnded || IsAssumed(job.attempt.cause)) continue;
    const auto ended = truth_.ended.find({job.uid, job.epoch});
    if (ended == truth_.ended.end() || ended->second != job.attempt.cause) {
      add({"I4: " + job.uid + " epoch " + std::to_string(job.epoch) + " is said to have ended " +
           Name(job.attempt.cause) + ", which it did not"});
    }
  }
}

bool Coordinator::Commit(const std::vector<core::Effects>& batch) {
  if (!is_calm_ && rng_.Chance(1)) store_->FailNextCommit(/*after_writing=*/rng_.Chance(500));
  std::vector<const core::Persist*> rows;
  for (const core::Effects& effects : batch) rows.push_back(&effects.persist);
  if (store_->Commit(rows).ok()) return true;
  Crash();  // memory is ahead of the disk: start again
  return false;
}

void Coordinator::Release(const std::vector<core::Effects>& batch) {
  for (const core::Effects& effects : batch) {
    for (const core::Reply& reply : effects.replies) {
      if (reply.token == 0) continue;
      outlets_.reply(reply);
      if (Dies(5)) return;
    }
    for (const core::Command& command : effects.commands) {
      const auto* launch = std::get_if<core::LaunchAttempt>(&command.what);
      if (launch != nullptr) {
        const auto row = disk_->jobs.find(launch->attempt.job);
        if (row == disk_->jobs.end() || row->second.epoch < launch->attempt.epoch) {
          truth_.broken.push_back("I6: " + launch->attempt.job +
                                  " is launched before its epoch is durable");
        }
      }
      outlets_.command(command);
      if (Dies(5)) return;
    }
  }
}

}  // namespace tandem::sim
