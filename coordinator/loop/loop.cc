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

Status Loop::Start(const core::Limits& limits) {
  TANDEM_ASSIGN_OR_RETURN(store::Contents contents, store_.Load(kEventsForWatchers));
  state_.limits = limits;
  const std::vector<core::Effects> steps = {core::Step(state_, std::move(contents.loaded), Now())};
  TANDEM_RETURN_IF_ERROR(Commit(steps));
  sink_.Load(state_, contents.events);
  std::map<core::RequestToken, ReplyFn> nobody;
  Release(steps.front(), nobody);
  Log(LogLevel::kInfo, "state_loaded",
      {{"jobs", state_.jobs.size()},
       {"workers", state_.workers.size()},
       {"revision", state_.revision},
       {"generation", state_.generation}});
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  return Status::Ok();
}

void Loop::Stop() {
  std::deque<Waiting> left;
  {
    MutexLock lock(mu_);
    if (closed_.ok()) closed_ = Stopping();
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
    if (!closed_.ok()) return closed_;
    if (queue_.size() >= kMaxQueued) {
      return ResourceExhausted("the coordinator has " + std::to_string(kMaxQueued) +
                               " events waiting; try again in a moment");
    }
    queue_.push_back(std::move(waiting));
  }
  arrived_.notify_one();
  return Status::Ok();
}

core::Now Loop::Now() const {
  return {clock_.MonotonicMs(), clock_.WallMs()};
}

void Loop::Run(const std::stop_token& stop) {
  while (!stop.stop_requested()) StepAndRelease(TakeBatch(stop));
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
  std::vector<core::Effects> steps;
  if (healthy()) {
    for (Waiting& one : batch) {
      if (one.token != 0) replies.emplace(one.token, std::move(one.reply));
      steps.push_back(core::Step(state_, one.event, Now()));
    }
    const Status committed = Commit(steps);
    if (committed.ok()) {
      for (const core::Effects& effects : steps) Release(effects, replies);
    } else {
      healthy_ = false;
      Log(LogLevel::kError, "store_commit_failed",
          {{"error", committed.ToString()},
           {"action", "repair the disk, restart the coordinator"}});
      MutexLock lock(mu_);
      closed_ = Unavailable("the coordinator's store does not take writes (" + committed.message() +
                            "); nothing was changed");
    }
  } else {
    for (Waiting& one : batch) replies.emplace(one.token, std::move(one.reply));
  }
  // Whoever has no reply by now was dropped with a failed commit.
  Status failed;
  {
    MutexLock lock(mu_);
    failed = closed_;
  }
  TANDEM_CHECK(replies.empty() || !failed.ok());
  for (const auto& [token, reply] : replies) Answer(reply, token, failed);
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
