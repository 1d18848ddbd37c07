#include "worker/agent/agent.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace tandem::agent {
namespace {

constexpr int64_t kProgressEveryMs = 500;
constexpr int64_t kDrainGraceMs =
    10'000;  // beyond the checkpoint's own time: sweeping, report, acknowledgement
constexpr size_t kMaxUnconfirmed = 4096;

}  // namespace

Agent::Agent(AgentConfig config, AttemptTools tools, Metrics& metrics, Outbox outbox)
    : config_(std::move(config)),
      tools_(tools),
      metrics_(metrics),
      outbox_(std::move(outbox)),
      heard_ms_(tools.clock.MonotonicMs()) {
  channel_ = std::make_unique<Channel>(
      config_.coordinator, [&loop = tools_.loop](auto closure) { loop.Post(std::move(closure)); },
      Channel::Listener{
          .opened = [this](int64_t stream) { OnOpened(stream); },
          .received = [this](int64_t stream,
                             const v1::ChannelResponse& message) { OnReceived(stream, message); },
          .closed = [this](int64_t stream, const Status& status) { OnClosed(stream, status); }});
}

Agent::~Agent() = default;

// --- The stream.

void Agent::OnOpened(int64_t stream) {
  stream_ = stream;
  registered_ = false;
  opened_ms_ = tools_.clock.MonotonicMs();
  v1::ChannelRequest request;
  *request.mutable_register_() = config_.registration;
  for (const auto& [key, attempt] : attempts_) {
    *request.mutable_register_()->add_live() = attempt->ref();
  }
  for (const auto& [key, status] : outbox_.pending()) {
    *request.mutable_register_()->add_ended() = status.attempt();
  }
  Send(std::move(request));
}

void Agent::OnClosed(int64_t stream, const Status& status) {
  if (stream != stream_) return;
  stream_ = 0;
  metrics_.ShowConnected(false);
  // Once per kind of trouble: a coordinator may be away for hours.
  if (CodeName(status.code()) != last_refusal_ || registered_) {
    last_refusal_ = CodeName(status.code());
    Log(LogLevel::kWarning, registered_ ? "coordinator_lost" : "coordinator_unreachable",
        {{"coordinator", config_.coordinator}, {"reason", status.ToString()}});
  }
  registered_ = false;
}

void Agent::OnReceived(int64_t stream, const v1::ChannelResponse& message) {
  if (stream != stream_) return;
  heard_ms_ = tools_.clock.MonotonicMs();
  using Kind = v1::ChannelResponse::MessageCase;
  switch (message.message_case()) {
    case Kind::kRegistered:
      return OnRegistered(message.registered());
    case Kind::kLaunch:
      return OnLaunch(message.launch());
    case Kind::kStop:
      return OnStop(message.stop());
    case Kind::kFenceBelow:
      return Fence(message.fence_below().job_uid(), message.fence_below().epoch(),
                   "fenced by the coordinator");
    case Kind::kInspect:
      return OnInspect(message.inspect());
    case Kind::kReadLogs:
      return OnReadLogs(message.read_logs());
    case Kind::kHeartbeatAck:
      return OnHeartbeatAck(message.heartbeat_ack().sequence());
    case Kind::kAttemptAck:
      return outbox_.Acknowledge(message.attempt_ack().attempt().job_uid(),
                                 message.attempt_ack().attempt().epoch());
    case Kind::MESSAGE_NOT_SET:
      Log(LogLevel::kWarning, "order_unknown", {{"coordinator", config_.coordinator}});
  }
}

void Agent::OnRegistered(const v1::Registered& message) {
  registered_ = true;
  last_refusal_.clear();
  metrics_.ShowConnected(true);
  if (message.lease_ms() > 0) lease_ms_ = message.lease_ms();
  if (message.heartbeat_ms() > 0) heartbeat_ms_ = message.heartbeat_ms();
  Log(LogLevel::kInfo, "registered",
      {{"coordinator", config_.coordinator},
       {"generation", message.coordinator_generation()},
       {"live", static_cast<int64_t>(attempts_.size())},
       {"unacknowledged", static_cast<int64_t>(outbox_.pending().size())}});
  for (auto& [sequence, request] : unconfirmed_) {
    sequence = heartbeat_sequence_ + 1;
    Send(request);
  }
  for (const auto& [key, status] : outbox_.pending()) {
    v1::ChannelRequest request;
    *request.mutable_attempt() = status;
    Send(std::move(request));
  }
  SendHeartbeat(tools_.clock.MonotonicMs());
}

void Agent::SendHeartbeat(int64_t now_ms) {
  v1::ChannelRequest request;
  v1::Heartbeat& heartbeat = *request.mutable_heartbeat();
  heartbeat.set_sequence(++heartbeat_sequence_);
  for (const auto& [key, attempt] : attempts_) *heartbeat.add_attempts() = attempt->CurrentStatus();
  next_heartbeat_ms_ = now_ms + heartbeat_ms_;
  Send(std::move(request));
}

void Agent::OnHeartbeatAck(int64_t sequence) {
  while (!unconfirmed_.empty() && unconfirmed_.front().first <= sequence) unconfirmed_.pop_front();
}

void Agent::SendUntilConfirmed(v1::ChannelRequest message) {
  if (unconfirmed_.size() >= kMaxUnconfirmed) unconfirmed_.pop_front();
  unconfirmed_.emplace_back(heartbeat_sequence_ + 1, message);
  if (registered_) Send(std::move(message));
}

// --- What attempts say.

void Agent::OnAttemptChanged(const Attempt& attempt) {
  const Key key{attempt.ref().job_uid(), attempt.ref().epoch()};
  const v1::AttemptStatus status = attempt.CurrentStatus();
  const int64_t now = tools_.clock.MonotonicMs();
  auto& told = told_ms_[key];
  if (!registered_ || (told != 0 && now - told < kProgressEveryMs))
    return;  // heartbeats say the rest
  told = now;
  v1::ChannelRequest request;
  *request.mutable_attempt() = status;
  Send(std::move(request));
}

void Agent::OnAttemptEnded(const v1::AttemptStatus& ended) {
  const Status kept = outbox_.Put(ended);
  if (!kept.ok()) Log(LogLevel::kError, "outbox_not_written", {{"reason", kept.ToString()}});
  metrics_.CountAttempt(ended.cause());
  if (!registered_) return;
  v1::ChannelRequest request;
  *request.mutable_attempt() = ended;
  Send(std::move(request));
}

// --- Time.

void Agent::Tick() {
  const int64_t now = tools_.clock.MonotonicMs();
  std::vector<std::shared_ptr<Attempt>> live;
  for (const auto& [key, attempt] : attempts_) live.push_back(attempt);
  for (const auto& attempt : live) {
    attempt->Tick();
    if (!attempt->has_ended()) {
      metrics_.Show(attempt->job_name(), attempt->Gauges());
      continue;
    }
    const Key key{attempt->ref().job_uid(), attempt->ref().epoch()};
    metrics_.Forget(attempt->job_name());
    attempts_.erase(key);
    told_ms_.erase(key);
  }
  BeginWaiting();
  if (registered_ && now >= next_heartbeat_ms_) SendHeartbeat(now);
  const int64_t silent_ms = now - std::max(heard_ms_, opened_ms_);
  if (stream_ != 0 && silent_ms > lease_ms_) {
    Log(LogLevel::kWarning, "coordinator_silent", {{"ms", silent_ms}});
    opened_ms_ = now;  // once per lease
    channel_->Reset(stream_);
  }
  StopOrphans(now);
  if (draining_) CheckDrained(now);
}

void Agent::StopOrphans(int64_t now_ms) {
  if (registered_ || now_ms - heard_ms_ < config_.orphan_ms) return;
  for (const auto& [key, attempt] : attempts_) {
    attempt->StopWithCheckpoint("the coordinator has been silent for " +
                                std::to_string((now_ms - heard_ms_) / 1000) + " s");
  }
}

void Agent::Drain() {
  std::vector<std::shared_ptr<Attempt>> live;
  for (const auto& [key, attempt] : attempts_) live.push_back(attempt);
  if (draining_) {
    for (const auto& attempt : live) attempt->Finish("STOPPED", "the agent was told twice to end");
    return;
  }
  draining_ = true;
  drain_deadline_ms_ = tools_.clock.MonotonicMs() + config_.attempts.stop_ms + kDrainGraceMs;
  Log(LogLevel::kInfo, "draining", {{"live", static_cast<int64_t>(live.size())}});
  v1::ChannelRequest request;
  request.mutable_drain()->set_reason("the agent was told to end");
  SendUntilConfirmed(std::move(request));  // unheard, the worker would be taken for lost
  if (registered_) SendHeartbeat(tools_.clock.MonotonicMs());
  for (const auto& attempt : live) attempt->StopWithCheckpoint("the worker is draining");
}

void Agent::CheckDrained(int64_t now_ms) {
  const bool late = now_ms >= drain_deadline_ms_;
  if (!attempts_.empty() && !late) return;
  // Ends that nobody can take now stay in the outbox for the next life.
  const bool all_heard = outbox_.pending().empty() && unconfirmed_.empty();
  if (!all_heard && registered_ && !late) return;
  Log(LogLevel::kInfo, "drained", {{"live", static_cast<int64_t>(attempts_.size())}});
  tools_.loop.Stop();
}

}  // namespace tandem::agent
