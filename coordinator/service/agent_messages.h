// Agent messages: what agents say as events of the core, and the core's commands as what they are
// told. Pure.
#pragma once

#include "coordinator/core/event.h"
#include "tandem/v1/fleet.pb.h"

namespace tandem::service {

// The stream that an agent's message came on.
struct Sender {
  core::WorkerName worker;
  core::ConnectionId connection = 0;
};
core::WorkerRegistered EventOf(const v1::Register& message, const Sender& sender);
core::CheckpointCommitted EventOf(const v1::CheckpointCommitted& message, const Sender& sender);
core::StageCommitted EventOf(const v1::StageCommitted& message, const Sender& sender);
core::AttemptEnded EndOf(const v1::AttemptStatus& message, const Sender& sender);
core::AttemptReport ReportOf(const v1::AttemptStatus& message);

// The message that carries a command; RefuseConnection has none.
v1::ChannelResponse MessageOf(const core::Command& command);

}  // namespace tandem::service
