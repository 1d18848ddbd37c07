#include "coordinator/service/worker_channel.h"

#include <memory>
#include <utility>

#include "base/flag_text.h"
#include "base/log.h"
#include "coordinator/service/job_names.h"
#include "coordinator/service/rich_error.h"

namespace tandem::service {
namespace {

constexpr int64_t kMaxSlots = 4096;
constexpr int kMaxNamed = 4096;

Status CheckRegister(const v1::Register& message) {
  std::string wrong;
  if (!IsName(message.worker())) {
    wrong += "worker is '" + message.worker().substr(0, 200) +
             "'; must be 1 to 63 letters, digits, '-', '_' or '.'\n";
  }
  if (message.slots() < 1 || message.slots() > kMaxSlots) {
    wrong += "slots is " + std::to_string(message.slots()) + "; must be in [1, 4096]\n";
  }
  if (message.gpus() < 0 || message.gpus() > kMaxSlots) {
    wrong += "gpus is " + std::to_string(message.gpus()) + "; must be in [0, 4096]\n";
  }
  if (message.incarnation().empty()) {
    wrong += "incarnation is empty; must be new at each start of the agent\n";
  }
  for (const auto& [list, size] :
       {std::pair{"live", message.live_size()}, {"ended", message.ended_size()}}) {
    if (size <= kMaxNamed) continue;
    wrong += std::string(list) + " names " + std::to_string(size) + " attempts; at most 4096\n";
  }
  if (wrong.empty()) return Status::Ok();
  wrong.pop_back();
  return InvalidArgument(wrong);
}

}  // namespace

void WorkerChannel::Start() {
  Hold();
  sender_.connection = hub_.Attach(shared_from_this());
  StartRead(&incoming_);
}

void WorkerChannel::OnReadDone(bool ok) {
  if (!ok) return Close(grpc::Status::OK);  // the agent has said all it will say
  const Status taken = Take(incoming_);
  if (!taken.ok()) return Abort(ToGrpc(taken));
  incoming_.Clear();
  StartRead(&incoming_);
}

void WorkerChannel::OnEnded() {
  hub_.Detach(sender_.connection);
  if (sender_.worker.empty()) return;
  relay_.OnDisconnected(sender_.connection);
  Log(LogLevel::kInfo, "worker_disconnected", {{"worker", sender_.worker}});
  // If it cannot be posted, the lease says the same a little later.
  const Status posted = loop_.Post(core::WorkerDisconnected{sender_.worker, sender_.connection});
  static_cast<void>(posted);
}

Status WorkerChannel::Take(const v1::ChannelRequest& message) {
  using Kind = v1::ChannelRequest::MessageCase;
  if (message.message_case() == Kind::kRegister) return Register(message.register_());
  if (sender_.worker.empty()) {
    return FailedPrecondition("the first message of a channel must be `register`");
  }
  switch (message.message_case()) {
    case Kind::kHeartbeat:
      return TakeHeartbeat(message.heartbeat());
    case Kind::kAttempt:
      return TakeAttempt(message.attempt());
    case Kind::kCheckpoint:
      return loop_.Post(EventOf(message.checkpoint(), sender_));
    case Kind::kStage:
      return loop_.Post(EventOf(message.stage(), sender_));
    case Kind::kDrain:
      return loop_.Post(core::WorkerDrainAnnounced{sender_.worker, sender_.connection});
    case Kind::kInspectResult:
      relay_.OnInspectResult(message.inspect_result());
      break;
    case Kind::kLogChunk:
      relay_.OnLogChunk(message.log_chunk());
      break;
    case Kind::kRegister:
    case Kind::MESSAGE_NOT_SET:
      return InvalidArgument(
          "a channel message is empty, or of a kind this coordinator does not "
          "know; run agent and coordinator of one version");
  }
  return Status::Ok();
}

Status WorkerChannel::Register(const v1::Register& message) {
  if (!sender_.worker.empty()) {
    return FailedPrecondition("worker '" + sender_.worker +
                              "' has registered on this channel "
                              "already; open a new channel to register again");
  }
  TANDEM_RETURN_IF_ERROR(CheckRegister(message));
  sender_.worker = message.worker();
  Log(LogLevel::kInfo, "worker_registering",
      {{"worker", message.worker()}, {"slots", message.slots()}, {"live", message.live_size()}});
  return loop_.Post(EventOf(message, sender_));
}

Status WorkerChannel::TakeHeartbeat(const v1::Heartbeat& heartbeat) {
  core::HeartbeatReceived event;
  event.worker = sender_.worker;
  event.connection = sender_.connection;
  event.sequence = heartbeat.sequence();
  for (const v1::AttemptStatus& status : heartbeat.attempts()) {
    if (status.phase() == v1::ATTEMPT_PHASE_ENDED) {
      TANDEM_RETURN_IF_ERROR(loop_.Post(EndOf(status, sender_)));
    } else {
      event.attempts.push_back(ReportOf(status));
    }
  }
  return loop_.Post(std::move(event));
}

Status WorkerChannel::TakeAttempt(const v1::AttemptStatus& status) {
  if (status.phase() == v1::ATTEMPT_PHASE_ENDED) return loop_.Post(EndOf(status, sender_));
  return loop_.Post(core::AttemptReported{sender_.worker, sender_.connection, ReportOf(status)});
}

grpc::ServerBidiReactor<v1::ChannelRequest, v1::ChannelResponse>* WorkerControlService::Channel(
    grpc::CallbackServerContext*) {
  const auto channel = std::make_shared<WorkerChannel>(loop_, hub_, relay_);
  channel->Start();
  return channel.get();
}

}  // namespace tandem::service
