#include "worker/agent/rank_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "base/log.h"

namespace tandem::agent {
namespace {

bool IsSameUser(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == getuid();
}

}  // namespace

Result<std::unique_ptr<RankSocket>> RankSocket::Listen(EventLoop& loop, const std::string& path,
                                                       int64_t epoch, OnMessage on_message) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return InvalidArgument("socket path " + path + " has " + std::to_string(path.size()) +
                           " bytes; at most 107: pass a shorter --runtime");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return ErrnoStatus("socket");
  unlink(path.c_str());
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      chmod(path.c_str(), 0600) != 0 || listen(fd, SOMAXCONN) != 0) {
    const Status failed = ErrnoStatus(path);
    close(fd);
    return failed;
  }
  return std::unique_ptr<RankSocket>(new RankSocket(loop, fd, path, epoch, std::move(on_message)));
}

RankSocket::RankSocket(EventLoop& loop, int fd, std::string path, int64_t epoch,
                       OnMessage on_message)
    : loop_(loop),
      fd_(fd),
      path_(std::move(path)),
      epoch_(epoch),
      on_message_(std::move(on_message)) {
  loop_.Watch(fd_, [this] { Accept(); });
}

RankSocket::~RankSocket() {
  while (!peers_.empty()) Disconnect(peers_.begin()->first);
  loop_.Unwatch(fd_);
  close(fd_);
  unlink(path_.c_str());
}

void RankSocket::Accept() {
  for (int fd = 0; (fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
    if (!IsSameUser(fd)) {
      Log(LogLevel::kWarning, "rank_refused", {{"reason", "another user"}, {"socket", path_}});
      close(fd);
      continue;
    }
    peers_[fd];
    loop_.Watch(fd, [this, fd] { Read(fd); });
  }
}

void RankSocket::Read(int fd) {
  char bytes[16 * 1024];
  Peer& peer = peers_.at(fd);
  for (;;) {
    const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) return Disconnect(fd);
    peer.buffer.append(bytes, static_cast<size_t>(got));
    if (!TakeLines(fd, peer)) return Disconnect(fd);
  }
}

bool RankSocket::TakeLines(int fd, Peer& peer) {
  size_t start = 0;
  for (size_t end = 0; (end = peer.buffer.find('\n', start)) != std::string::npos;
       start = end + 1) {
    const auto message = DecodeRankMessage(peer.buffer.substr(start, end - start));
    if (!message.ok()) {
      Log(LogLevel::kWarning, "rank_message_refused", {{"reason", message.status().message()}});
      return false;
    }
    if (!TakeMessage(fd, peer, *message)) return false;
  }
  peer.buffer.erase(0, start);
  return static_cast<int64_t>(peer.buffer.size()) <= kMaxMessageBytes;
}

bool RankSocket::TakeMessage(int fd, Peer& peer, const RankMessage& message) {
  const bool is_hello = message.type == "hello";
  if (message.epoch != epoch_ || is_hello != (peer.rank < 0)) {
    Log(LogLevel::kWarning, "rank_fenced",
        {{"rank", message.rank},
         {"epoch", message.epoch},
         {"expected", epoch_},
         {"type", message.type}});
    Send(fd, {.type = "kill", .epoch = message.epoch, .action = {}});
    return false;
  }
  if (is_hello) {
    // A rank may have said its last and gone: what it said is still read, up to the end of file.
    peer.rank = message.rank;
    Send(fd, {.type = "welcome", .epoch = epoch_, .action = {}});
    if (!action_.empty()) Send(fd, {.type = "action", .epoch = epoch_, .action = action_});
  }
  on_message_(message);
  return true;
}

void RankSocket::Send(int fd, const AgentMessage& message) {
  const std::string line = EncodeAgentMessage(message);
  const ssize_t sent = send(fd, line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent == static_cast<ssize_t>(line.size())) return;
  Log(LogLevel::kWarning, "rank_not_reached", {{"type", message.type}, {"epoch", epoch_}});
}

void RankSocket::SendAction(const std::string& action) {
  action_ = action;
  for (const auto& [fd, peer] : peers_) {
    if (peer.rank < 0) continue;  // gets it after its welcome
    Send(fd, {.type = "action", .epoch = epoch_, .action = action});
  }
}

void RankSocket::ReadRest() {
  Accept();
  std::vector<int> fds;
  for (const auto& [fd, peer] : peers_) fds.push_back(fd);
  for (int fd : fds) Read(fd);
}

void RankSocket::Disconnect(int fd) {
  loop_.Unwatch(fd);
  peers_.erase(fd);
  close(fd);
}

}  // namespace tandem::agent
