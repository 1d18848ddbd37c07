// WorkerChannel: one agent's stream: its messages become events of the core, the core's commands go
// back.
//
// Reads go on as fast as the state thread takes events; when its queue is full the stream ends, and
// the agent, which keeps what was not acknowledged, comes back. Confined by gRPC's rule of one read
// at a time.
#pragma once

#include <string>

#include "coordinator/loop/loop.h"
#include "coordinator/service/agent_messages.h"
#include "coordinator/service/relay.h"
#include "coordinator/service/worker_hub.h"
#include "tandem/v1/fleet.grpc.pb.h"

namespace tandem::service {

class WorkerChannel : public ChannelStream {
 public:
  WorkerChannel(Loop& loop, WorkerHub& hub, Relay& relay)
      : StreamReactor(/*capacity=*/1024), loop_(loop), hub_(hub), relay_(relay) {}
  // Once, after construction: takes hold of itself and begins to read.
  void Start();

 private:
  void OnReadDone(bool ok) override;
  void OnEnded() override;
  Status Take(const v1::ChannelRequest& message);
  Status Register(const v1::Register& message);
  Status TakeHeartbeat(const v1::Heartbeat& heartbeat);
  Status TakeAttempt(const v1::AttemptStatus& status);

  Loop& loop_;
  WorkerHub& hub_;
  Relay& relay_;
  Sender sender_;  // worker is set by the registration
  v1::ChannelRequest incoming_;
};

class WorkerControlService : public v1::WorkerControl::CallbackService {
 public:
  WorkerControlService(Loop& loop, WorkerHub& hub, Relay& relay)
      : loop_(loop), hub_(hub), relay_(relay) {}
  grpc::ServerBidiReactor<v1::ChannelRequest, v1::ChannelResponse>* Channel(
      grpc::CallbackServerContext* context) override;

 private:
  Loop& loop_;
  WorkerHub& hub_;
  Relay& relay_;
};

}  // namespace tandem::service
