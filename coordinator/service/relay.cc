#include "coordinator/service/relay.h"

#include <utility>
#include <vector>

#include "coordinator/service/worker_hub.h"

namespace tandem::service {
namespace {

Status NotConnected(const std::string& worker) {
  return Unavailable("worker '" + worker + "' is not connected; try again when it is back");
}

Status Stopping() {
  return Unavailable("the coordinator is stopping");
}

Status TooMany() {
  return ResourceExhausted("4096 questions to workers are open; try again in a moment");
}

}  // namespace

void Relay::Fail(const Open& open, const Status& status) {
  if (open.inspect) open.inspect(status);
  if (open.logs) open.logs(status);
}

Result<std::string> Relay::Register(const Open& open) {
  MutexLock lock(mu_);
  if (stopped_) return Stopping();
  if (open_.size() >= kMaxOpen) return TooMany();
  std::string id = "q" + std::to_string(next_id_++);
  open_.emplace(id, open);
  return id;
}

bool Relay::Take(const std::string& id, Open* open) {
  MutexLock lock(mu_);
  const auto it = open_.find(id);
  if (it == open_.end()) return false;
  *open = std::move(it->second);
  open_.erase(it);
  return true;
}

void Relay::AskInspect(const std::string& worker, v1::Inspect question, int64_t deadline_ms,
                       InspectDone done) {
  v1::ChannelResponse message;
  *message.mutable_inspect() = std::move(question);
  Ask({deadline_ms, worker, 0, std::move(done), nullptr}, message,
      *message.mutable_inspect()->mutable_request_id());
}

void Relay::AskLogs(const std::string& worker, v1::ReadLogs question, int64_t deadline_ms,
                    LogDone done) {
  v1::ChannelResponse message;
  *message.mutable_read_logs() = std::move(question);
  Ask({deadline_ms, worker, 0, nullptr, std::move(done)}, message,
      *message.mutable_read_logs()->mutable_request_id());
}

void Relay::Ask(Open open, v1::ChannelResponse& message, std::string& request_id) {
  open.connection = hub_.ConnectionOf(open.worker);
  const Result<std::string> id = Register(open);
  if (!id.ok()) return Fail(open, id.status());
  request_id = *id;
  Open unsent;
  if (!hub_.Send(open.connection, std::move(message)) && Take(*id, &unsent)) {
    Fail(unsent, NotConnected(open.worker));
  }
}

void Relay::OnInspectResult(v1::InspectResult answer) {
  Open open;
  if (Take(answer.request_id(), &open) && open.inspect) open.inspect(std::move(answer));
}

void Relay::OnLogChunk(v1::LogChunk answer) {
  Open open;
  if (Take(answer.request_id(), &open) && open.logs) open.logs(std::move(answer));
}

std::vector<Relay::Open> Relay::TakeIf(const std::function<bool(const Open&)>& wanted) {
  std::vector<Open> taken;
  MutexLock lock(mu_);
  for (auto it = open_.begin(); it != open_.end();) {
    if (!wanted(it->second)) {
      ++it;
      continue;
    }
    taken.push_back(std::move(it->second));
    it = open_.erase(it);
  }
  return taken;
}

void Relay::OnDisconnected(uint64_t connection) {
  const auto asked = TakeIf([=](const Open& open) { return open.connection == connection; });
  for (const Open& open : asked) Fail(open, NotConnected(open.worker));
}

void Relay::Expire(int64_t now_ms) {
  const auto late = TakeIf([now_ms](const Open& open) { return open.deadline_ms <= now_ms; });
  for (const Open& open : late) {
    Fail(open, Unavailable("worker '" + open.worker + "' did not answer in time; try again"));
  }
}

void Relay::Stop() {
  std::map<std::string, Open> all;
  {
    MutexLock lock(mu_);
    stopped_ = true;
    all.swap(open_);
  }
  for (const auto& [id, open] : all) Fail(open, Stopping());
}

}  // namespace tandem::service
