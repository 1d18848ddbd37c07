// RankSocket: where the ranks of one attempt talk to their agent (messages in
// worker/plan/messages.h).
//
// Listens until destroyed. A peer of another user, of another epoch, or one that does not speak the
// protocol is told to end and disconnected; the end of its connection makes a rank stop by itself.
// Never blocks: a rank that does not read is disconnected. Confined to the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/status.h"
#include "worker/agent/event_loop.h"
#include "worker/plan/messages.h"

namespace tandem::agent {

class RankSocket {
 public:
  using OnMessage = std::function<void(const RankMessage&)>;
  // At most 107 bytes of path. Messages of `epoch` alone reach on_message, each rank's hello first.
  static Result<std::unique_ptr<RankSocket>> Listen(EventLoop& loop, const std::string& path,
                                                    int64_t epoch, OnMessage on_message);
  ~RankSocket();
  RankSocket(const RankSocket&) = delete;
  RankSocket& operator=(const RankSocket&) = delete;

  // To every rank that is connected, and to each that comes later, after its welcome. The newest
  // action counts.
  void SendAction(const std::string& action);
  // Takes what has arrived by now, without waiting for the loop to notice.
  void ReadRest();
  size_t connected() const { return peers_.size(); }

 private:
  struct Peer {
    int64_t rank = -1;  // until its hello
    std::string buffer;
  };
  RankSocket(EventLoop& loop, int fd, std::string path, int64_t epoch, OnMessage on_message);
  void Accept();
  void Read(int fd);
  // False: the peer is to go.
  bool TakeLines(int fd, Peer& peer);
  bool TakeMessage(int fd, Peer& peer, const RankMessage& message);
  void Send(int fd, const AgentMessage& message);
  void Disconnect(int fd);

  EventLoop& loop_;
  const int fd_;
  const std::string path_;
  const int64_t epoch_;
  const OnMessage on_message_;
  std::map<int, Peer> peers_;
  std::string action_;  // the newest; empty: none
};

}  // namespace tandem::agent
