// Views: the core's plain values as messages of tandem.v1, and the agents' messages as events of
// the core. Pure.
#pragma once

#include <optional>

#include "coordinator/core/event.h"
#include "coordinator/core/state.h"
#include "tandem/v1/fleet.pb.h"
#include "tandem/v1/job.pb.h"

namespace tandem::service {

v1::Job ViewOf(const core::Job& job);
v1::JobEvent ViewOf(const core::JobEvent& event);
// `state` names the jobs that the worker runs.
v1::Worker ViewOf(const core::Worker& worker, const core::State& state);
// The message that carries a command; RefuseConnection has none.
v1::ChannelResponse ViewOf(const core::Command& command);

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

}  // namespace tandem::service
