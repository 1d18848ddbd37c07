#include "coordinator/service/worker_hub.h"

#include <utility>

#include "base/log.h"

namespace tandem::service {

uint64_t WorkerHub::Attach(std::shared_ptr<ChannelStream> stream) {
  MutexLock lock(mu_);
  const uint64_t connection = next_++;
  streams_.emplace(connection, std::move(stream));
  return connection;
}

void WorkerHub::Detach(uint64_t connection) {
  MutexLock lock(mu_);
  streams_.erase(connection);
  for (auto it = confirmed_.begin(); it != confirmed_.end();) {
    it = it->second == connection ? confirmed_.erase(it) : std::next(it);
  }
}

void WorkerHub::Confirm(const std::string& worker, uint64_t connection) {
  uint64_t old = 0;
  {
    MutexLock lock(mu_);
    old = std::exchange(confirmed_[worker], connection);
  }
  if (old == 0 || old == connection) return;
  Log(LogLevel::kWarning, "worker_stream_replaced", {{"worker", worker}});
  Refuse(old, {grpc::StatusCode::ABORTED,
               "worker '" + worker + "' has opened a newer stream; this one is not used any more"});
}

void WorkerHub::Refuse(uint64_t connection, const grpc::Status& status) {
  if (const auto stream = Find(connection)) stream->Abort(status);
}

std::shared_ptr<ChannelStream> WorkerHub::Find(uint64_t connection) const {
  MutexLock lock(mu_);
  const auto it = streams_.find(connection);
  return it == streams_.end() ? nullptr : it->second;
}

uint64_t WorkerHub::ConnectionOf(const std::string& worker) const {
  MutexLock lock(mu_);
  const auto it = confirmed_.find(worker);
  return it == confirmed_.end() ? 0 : it->second;
}

bool WorkerHub::Send(uint64_t connection, v1::ChannelResponse message) {
  const std::shared_ptr<ChannelStream> stream = Find(connection);
  if (stream == nullptr) return false;
  if (stream->Send(std::move(message))) return true;
  stream->Abort({grpc::StatusCode::RESOURCE_EXHAUSTED,
                 "the agent does not read its channel; reconnect to be told what was missed"});
  return false;
}

bool WorkerHub::IsConnected(const std::string& worker) const {
  return ConnectionOf(worker) != 0;
}

void WorkerHub::CloseAll(const grpc::Status& status) {
  std::map<uint64_t, std::shared_ptr<ChannelStream>> all;
  {
    MutexLock lock(mu_);
    all = streams_;
  }
  for (const auto& [connection, stream] : all) stream->Close(status);
}

}  // namespace tandem::service
