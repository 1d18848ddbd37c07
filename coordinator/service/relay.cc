#include "coordinator/service/relay.h"

#include <utility>
#include <vector>

#include "coordinator/service/worker_hub.h"

namespace tandem::service {
namespace {

Status NotConnected(const std::string& worker) {
  return Unavailable("worker '" + worker + "' is not connected; try again when it is back");
}

Status TooMany() {
  return ResourceExhausted("4096 questions to workers are open; try again in a moment");
}

}  // namespace

void Relay::Fail(const Open& open, const Status& status) {
  if (open.inspect) open.inspect(status);
  if (open.logs) open.logs(status);
}

std::string Relay::Register(Open open) {
  MutexLock lock(mu_);
  if (stopped_ || open_.size() >= kMaxOpen) return "";
  std::string id = "q" + std::to_string(next_id_++);
  open_.emplace(id, std::move(open));
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
  const std::string id = Register({deadline_ms, worker, done, nullptr});
  if (id.empty()) return done(TooMany());
  question.set_request_id(id);
  v1::ChannelResponse message;
  *message.mutable_inspect() = std::move(question);
  Open open;
  if (!hub_.SendToWorker(worker, std::move(message)) && Take(id, &open))
    Fail(open, NotConnected(worker));
}

void Relay::AskLogs(const std::string& worker, v1::ReadLogs question, int64_t deadline_ms,
                    LogDone done) {
  const std::string id = Register({deadline_ms, worker, nullptr, done});
  if (id.empty()) return done(TooMany());
  question.set_request_id(id);
  v1::ChannelResponse message;
  *message.mutable_read_logs() = std::move(question);
  Open open;
  if (!hub_.SendToWorker(worker, std::move(message)) && Take(id, &open))
    Fail(open, NotConnected(worker));
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

void Relay::OnDisconnected(const std::string& worker) {
  const auto asked = TakeIf([&worker](const Open& open) { return open.worker == worker; });
  for (const Open& open : asked) Fail(open, NotConnected(worker));
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
  for (const auto& [id, open] : all) Fail(open, Unavailable("the coordinator is stopping"));
}

}  // namespace tandem::service
