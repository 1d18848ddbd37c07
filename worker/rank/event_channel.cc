#include "worker/rank/event_channel.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace tandem {
namespace {

constexpr size_t kMaxQueuedProgress = 64;

[[noreturn]] void LeaveAtOnce() {
  std::_Exit(static_cast<int>(RankExit::kStopped));
}

// False when the peer is gone.
bool WriteAll(int fd, const std::string& line) {
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = send(fd, line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

Result<int> ConnectTo(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return InvalidArgument("plan.socket has " + std::to_string(path.size()) +
                           " bytes; a unix socket's path has at most " +
                           std::to_string(sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus("socket");
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const Status status = ErrnoStatus("connect to the agent at " + path);
    close(fd);
    return status;
  }
  return fd;
}

}  // namespace

Result<std::unique_ptr<EventChannel>> EventChannel::Connect(const std::string& socket,
                                                            int64_t epoch, int64_t rank) {
  int fd = -1;
  if (!socket.empty()) {
    TANDEM_ASSIGN_OR_RETURN(fd, ConnectTo(socket));
  }
  std::unique_ptr<EventChannel> channel(new EventChannel(fd, epoch, rank));
  RankMessage hello;
  hello.type = "hello";
  hello.pid = getpid();
  channel->Send(std::move(hello));
  return channel;
}

EventChannel::EventChannel(int fd, int64_t epoch, int64_t rank)
    : fd_(fd), epoch_(epoch), rank_(rank) {
  if (fd_ < 0) return;
  writer_ = std::jthread([this] { WriteQueued(); });
  reader_ = std::jthread([this] { ReadRequests(); });
}

EventChannel::~EventChannel() {
  if (fd_ < 0) return;
  {
    MutexLock lock(mu_);
    closed_ = true;
  }
  changed_.notify_all();
  writer_.join();
  closing_ = true;
  shutdown(fd_, SHUT_RDWR);
  reader_.join();
  close(fd_);
}

void EventChannel::Send(RankMessage message) {
  if (fd_ < 0) return;
  message.epoch = epoch_;
  message.rank = rank_;
  {
    MutexLock lock(mu_);
    if (message.type == "progress" && queue_.size() >= kMaxQueuedProgress) return;
    message.seq = ++seq_;
    queue_.push_back(EncodeRankMessage(message));
  }
  changed_.notify_one();
}

ControlRequest EventChannel::TakeRequest() {
  return static_cast<ControlRequest>(request_.exchange(0));
}

void EventChannel::SetInterruptible(bool interruptible) {
  interruptible_ = interruptible;
  if (interruptible && request_.load() >= static_cast<int64_t>(ControlRequest::kCheckpointStop)) {
    LeaveAtOnce();
  }
}

void EventChannel::WriteQueued() {
  while (true) {
    std::string line;
    {
      MutexLock lock(mu_);
      changed_.wait(mu_, [this] { return closed_ || !queue_.empty(); });
      if (queue_.empty()) return;
      line = std::move(queue_.front());
      queue_.pop_front();
    }
    if (!WriteAll(fd_, line)) return;  // the reader sees the end of file and leaves
  }
}

void EventChannel::ReadRequests() {
  std::string pending;
  char bytes[4096];
  while (true) {
    const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || pending.size() > static_cast<size_t>(kMaxMessageBytes)) break;
    pending.append(bytes, static_cast<size_t>(n));
    for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      const Result<AgentMessage> message = DecodeAgentMessage(pending.substr(0, end));
      pending.erase(0, end + 1);
      if (message.ok()) {
        Obey(*message);
      } else {
        Log(LogLevel::kWarning, "agent_message_refused", {{"why", message.status().ToString()}});
      }
    }
  }
  if (closing_) return;
  Log(LogLevel::kError, "agent_lost", {{"rank", rank_}});
  LeaveAtOnce();
}

void EventChannel::Obey(const AgentMessage& message) {
  if (message.type == "kill") LeaveAtOnce();
  if (message.type != "action" || message.epoch != epoch_) return;
  ControlRequest wanted = ControlRequest::kNone;
  if (message.action == "checkpoint") wanted = ControlRequest::kCheckpoint;
  if (message.action == "checkpoint_stop") wanted = ControlRequest::kCheckpointStop;
  if (message.action == "stop") wanted = ControlRequest::kStop;
  Log(LogLevel::kInfo, "action_received", {{"action", message.action}});
  int64_t seen = request_.load();
  while (seen < static_cast<int64_t>(wanted) &&
         !request_.compare_exchange_weak(seen, static_cast<int64_t>(wanted))) {
  }
  if (interruptible_ && wanted >= ControlRequest::kCheckpointStop) LeaveAtOnce();
}

}  // namespace tandem
