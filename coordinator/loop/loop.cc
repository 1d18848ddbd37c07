#include "coordinator/loop/loop.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"

namespace tandem {
namespace {

constexpr int64_t kEventsForWatchers = 10'000;

Status Stopping() {
  return Unavailable("the coordinator is stopping; try again when it is back");
}

void Answer(const Loop::ReplyFn& reply, core::RequestToken token, const Status& status) {
  if (!reply) return;
  core::Reply answer;
  answer.token = token;
  answer.status = status;
  reply(answer);
}

}  // namespace

Loop::Loop(store::Store& store, EffectSink& sink, Metrics& metrics, const Clock& clock)
    : store_(store), sink_(sink), metrics_(metrics), clock_(clock) {}

Loop::~Loop() {
  Stop();
}

Result<core::Effects> Loop::LoadState(store::Contents& contents, const core::Limits& limits) {
  state_ = {};
  stale_counted_ = 0;
  state_.limits = limits;
  std::vector<core::Effects> steps;
  steps.push_back(core::Step(state_, std::move(contents.loaded), Now()));
  TANDEM_RETURN_IF_ERROR(Commit(steps));
  Log(LogLevel::kInfo, "state_loaded",
      {{"jobs", state_.jobs.size()},
       {"workers", state_.workers.size()},
       {"revision", state_.revision},
       {"generation", state_.generation}});
  return std::move(steps.front());
}

Status Loop::Start(const core::Limits& limits) {
  TANDEM_ASSIGN_OR_RETURN(store::Contents contents, store_.Load(kEventsForWatchers));
  TANDEM_ASSIGN_OR_RETURN(const core::Effects effects, LoadState(contents, limits));
  sink_.Load(state_, contents.events);
  shown_ = state_.revision;
  std::map<core::RequestToken, ReplyFn> nobody;
  Release(effects, nobody);
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  return Status::Ok();
}

void Loop::Stop() {
  std::deque<Waiting> left;
  {
    MutexLock lock(mu_);
    stopped_ = true;
  }
  if (thread_.joinable()) {
    thread_.request_stop();
    thread_.join();
  }
  {
    MutexLock lock(mu_);
    left.swap(queue_);
  }
  for (const Waiting& one : left) Answer(one.reply, one.token, Stopping());
}

Status Loop::Post(core::Event event) {
  return Enqueue({std::move(event), 0, nullptr});
}

Status Loop::Ask(const std::function<core::Event(core::RequestToken)>& with_token, ReplyFn reply) {
  core::RequestToken token = 0;
  {
    MutexLock lock(mu_);
    token = next_token_++;
  }
  return Enqueue({with_token(token), token, std::move(reply)});
}

Status Loop::Enqueue(Waiting waiting) {
  {
    MutexLock lock(mu_);
    if (stopped_) return Stopping();
    if (!failure_.ok()) return Refusal();
    if (queue_.size() >= kMaxQueued) {
      return ResourceExhausted("the coordinator has " + std::to_string(kMaxQueued) +
                               " events waiting; try again in a moment");
    }
    queue_.push_back(std::move(waiting));
  }
  arrived_.notify_one();
  return Status::Ok();
}

Status Loop::Refusal() const {
  return Unavailable("the coordinator cannot write at the moment (" + failure_.message() +
                     "); nothing was changed");
}

std::string Loop::store_failure() const {
  MutexLock lock(mu_);
  return failure_.message();
}

core::Now Loop::Now() const {
  return {clock_.MonotonicMs(), clock_.WallMs()};
}

void Loop::Run(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::vector<Waiting> batch = TakeBatch(stop);
    if (!healthy()) TryToRecover();
    StepAndRelease(std::move(batch));
  }
}

std::vector<Loop::Waiting> Loop::TakeBatch(const std::stop_token& stop) {
  std::vector<Waiting> batch;
  const int64_t wait_ms = std::clamp<int64_t>(next_tick_ms_ - clock_.MonotonicMs(), 0, kTickMs);
  {
    MutexLock lock(mu_);
    arrived_.wait_for(mu_, stop, std::chrono::milliseconds(wait_ms),
                      [this] { return !queue_.empty(); });
    const size_t size = std::min(queue_.size(), kMaxBatch);
    batch.reserve(size + 1);
    for (size_t i = 0; i < size; ++i) {
      batch.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
  }
  if (const int64_t now = clock_.MonotonicMs(); now >= next_tick_ms_) {
    next_tick_ms_ = now + kTickMs;
    batch.push_back({core::Ticked{}, 0, nullptr});
  }
  return batch;
}

void Loop::StepAndRelease(std::vector<Waiting> batch) {
  std::map<core::RequestToken, ReplyFn> replies;
  for (Waiting& one : batch) {
    if (one.token != 0) replies.emplace(one.token, std::move(one.reply));
  }
  if (healthy()) {
    std::vector<core::Effects> steps;
    for (Waiting& one : batch) steps.push_back(core::Step(state_, one.event, Now()));
    const Status committed = Commit(steps);
    if (!committed.ok()) {
      Fail(committed);
    } else {
      for (const core::Effects& effects : steps) Release(effects, replies);
    }
  }
  // Whoever has no reply by now was dropped with a failed commit.
  if (replies.empty()) return;
  Status refusal;
  {
    MutexLock lock(mu_);
    TANDEM_CHECK(!failure_.ok());
    refusal = Refusal();
  }
  for (const auto& [token, reply] : replies) Answer(reply, token, refusal);
}

void Loop::Fail(const Status& status) {
  healthy_ = false;
  next_recovery_ms_ = clock_.MonotonicMs() + kRecoveryMs;
  Log(LogLevel::kError, "store_commit_failed",
      {{"error", status.ToString()},
       {"action", "repair the disk; the store is tried every second"}});
  MutexLock lock(mu_);
  failure_ = status;
}

void Loop::TryToRecover() {
  if (clock_.MonotonicMs() < next_recovery_ms_) return;
  next_recovery_ms_ = clock_.MonotonicMs() + kRecoveryMs;
  if (!Reload().ok()) return;  // as it has been: said once, by Fail
  Log(LogLevel::kInfo, "store_recovered", {{"revision", state_.revision}});
  {
    MutexLock lock(mu_);
    failure_ = Status::Ok();
  }
  healthy_ = true;
}

Status Loop::Reload() {
  TANDEM_RETURN_IF_ERROR(store_.Recover());
  TANDEM_ASSIGN_OR_RETURN(store::Contents contents, store_.Load(kEventsForWatchers));
  DisconnectAgents();
  TANDEM_ASSIGN_OR_RETURN(core::Effects effects, LoadState(contents, core::Limits(state_.limits)));
  // The commit that failed may have reached the disk all the same; then nobody has seen it yet.
  for (core::JobEvent& event : contents.events) {
    if (event.revision <= shown_) continue;
    effects.persist.jobs.push_back(state_.jobs.at(event.job));
    effects.persist.events.push_back(std::move(event));
  }
  std::map<core::RequestToken, ReplyFn> nobody;
  Release(effects, nobody);
  return Status::Ok();
}

void Loop::DisconnectAgents() {
  for (const auto& [name, worker] : state_.workers) {
    if (worker.connection == 0) continue;
    const Status why = Unavailable("the coordinator has loaded its store anew; register again");
    sink_.Command({name, worker.connection, core::RefuseConnection{why}});
  }
}

Status Loop::Commit(const std::vector<core::Effects>& steps) {
  std::vector<const core::Persist*> rows;
  for (const core::Effects& effects : steps) {
    if (!effects.persist.empty()) rows.push_back(&effects.persist);
  }
  if (rows.empty()) return Status::Ok();
  const int64_t start_ns = clock_.MonotonicNs();
  const Status status = store_.Commit(rows);
  metrics_.ObserveCommit(static_cast<double>(clock_.MonotonicNs() - start_ns) * 1e-9);
  return status;
}

void Loop::Release(const core::Effects& effects, std::map<core::RequestToken, ReplyFn>& replies) {
  sink_.Publish(state_, effects);
  if (!effects.persist.events.empty()) shown_ = effects.persist.events.back().revision;
  for (const core::Reply& reply : effects.replies) {
    const auto waiting = replies.find(reply.token);
    if (waiting == replies.end()) continue;
    const ReplyFn answer = std::move(waiting->second);
    replies.erase(waiting);
    if (answer) answer(reply);
  }
  for (const core::Command& command : effects.commands) sink_.Command(command);
  for (; stale_counted_ < state_.counters.stale_messages; ++stale_counted_) {
    metrics_.CountStaleEpoch();
  }
}

}  // namespace tandem
