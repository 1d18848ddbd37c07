// WorkerHub: the agents' open streams, by connection, and which of them a worker is asked on: the
// core's commands name a connection, questions (Relay) a worker.
//
// A worker's stream is the one the core last confirmed; confirming a newer one ends the older (the
// agent reconnected before its old stream was seen to die). Sending never waits: a stream whose
// queue is full is ended, and its agent comes back and is told what it missed. Locked by mu_;
// streams are called without it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "coordinator/service/stream_reactor.h"
#include "tandem/v1/fleet.pb.h"

namespace tandem::service {

using ChannelStream =
    StreamReactor<grpc::ServerBidiReactor<v1::ChannelRequest, v1::ChannelResponse>,
                  v1::ChannelResponse>;

class WorkerHub {
 public:
  // A new stream; its connection number, from 1.
  uint64_t Attach(std::shared_ptr<ChannelStream> stream);
  void Detach(uint64_t connection);
  // From now on the worker is asked on this stream.
  void Confirm(const std::string& worker, uint64_t connection);
  // Ends the stream with `status`.
  void Refuse(uint64_t connection, const grpc::Status& status);
  // False when there is no such stream or its queue is full.
  bool Send(uint64_t connection, v1::ChannelResponse message);
  // The stream on which the worker is asked; 0: none.
  uint64_t ConnectionOf(const std::string& worker) const;
  bool IsConnected(const std::string& worker) const;
  // Ends every stream; the agents try to reconnect.
  void CloseAll(const grpc::Status& status);

 private:
  std::shared_ptr<ChannelStream> Find(uint64_t connection) const;

  mutable Mutex mu_;
  uint64_t next_ TANDEM_GUARDED_BY(mu_) = 1;
  std::map<uint64_t, std::shared_ptr<ChannelStream>> streams_ TANDEM_GUARDED_BY(mu_);
  std::map<std::string, uint64_t> confirmed_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::service
