#include "coordinator/service/agent_messages.h"

#include <string>
#include <variant>

#include "coordinator/service/job_names.h"
#include "coordinator/service/views.h"

namespace tandem::service {
namespace {

core::Progress ProgressOf(const v1::JobProgress& from) {
  core::Progress to;
  to.stage = from.stage();
  to.stage_index = from.stage_index();
  to.stage_count = from.stage_count();
  to.step = from.step();
  to.steps = from.steps();
  to.loss = from.loss();
  to.tokens_per_second = from.tokens_per_second();
  to.eta_seconds = from.eta_seconds();
  to.checkpoint_step = from.checkpoint_step();
  to.step_seconds = from.step_seconds();
  return to;
}

void SetAttempt(const core::AttemptRef& from, v1::AttemptRef* to) {
  to->set_job_uid(from.job);
  to->set_epoch(from.epoch);
}

core::AttemptRef AttemptOf(const v1::AttemptRef& from) {
  return {from.job_uid(), from.epoch()};
}

void Fill(const core::LaunchAttempt& launch, v1::ChannelResponse* message) {
  v1::Launch& to = *message->mutable_launch();
  SetAttempt(launch.attempt, to.mutable_attempt());
  to.set_job_name(JobName(launch.project, launch.job_name));
  to.set_slots(launch.slots);
  SetSpec(launch.spec, launch.job_name, to.mutable_spec());
}

void Fill(const core::StopAttempt& stop, v1::ChannelResponse* message) {
  v1::Stop& to = *message->mutable_stop();
  SetAttempt(stop.attempt, to.mutable_attempt());
  to.set_kind(stop.kind == core::StopKind::kKill ? v1::Stop::KIND_KILL
                                                 : v1::Stop::KIND_CHECKPOINT_AND_STOP);
  to.set_reason(stop.reason);
}

void Fill(const core::FenceAttempts& fence, v1::ChannelResponse* message) {
  message->mutable_fence_below()->set_job_uid(fence.job);
  message->mutable_fence_below()->set_epoch(fence.epoch);
}

void Fill(const core::AckAttempt& ack, v1::ChannelResponse* message) {
  SetAttempt(ack.attempt, message->mutable_attempt_ack()->mutable_attempt());
}

void Fill(const core::AckHeartbeat& ack, v1::ChannelResponse* message) {
  message->mutable_heartbeat_ack()->set_sequence(ack.sequence);
}

void Fill(const core::ConfirmRegistration& confirm, v1::ChannelResponse* message) {
  v1::Registered& to = *message->mutable_registered();
  to.set_lease_ms(confirm.lease_ms);
  to.set_heartbeat_ms(confirm.heartbeat_ms);
  to.set_coordinator_generation(std::to_string(confirm.generation));
}

void Fill(const core::RefuseConnection&, v1::ChannelResponse*) {}

}  // namespace

v1::ChannelResponse MessageOf(const core::Command& command) {
  v1::ChannelResponse message;
  std::visit([&message](const auto& what) { Fill(what, &message); }, command.what);
  return message;
}

core::WorkerRegistered EventOf(const v1::Register& message, const Sender& sender) {
  core::WorkerRegistered event;
  event.worker = sender.worker;
  event.connection = sender.connection;
  event.incarnation = message.incarnation();
  event.slots = message.slots();
  event.gpus = message.gpus();
  event.host = message.host();
  event.version = message.version();
  event.device = message.device();
  event.metrics_address = message.metrics_address();
  for (const v1::AttemptRef& attempt : message.live()) event.live.push_back(AttemptOf(attempt));
  for (const v1::AttemptRef& attempt : message.ended()) event.ended.push_back(AttemptOf(attempt));
  return event;
}

core::CheckpointCommitted EventOf(const v1::CheckpointCommitted& message, const Sender& sender) {
  core::CheckpointCommitted event;
  event.worker = sender.worker;
  event.connection = sender.connection;
  event.attempt = AttemptOf(message.attempt());
  event.stage_index = message.stage_index();
  event.step = message.step();
  event.directory = message.directory();
  event.manifest_sha256 = message.manifest_sha256();
  event.bytes = message.bytes();
  return event;
}

core::StageCommitted EventOf(const v1::StageCommitted& message, const Sender& sender) {
  core::StageCommitted event;
  event.worker = sender.worker;
  event.connection = sender.connection;
  event.attempt = AttemptOf(message.attempt());
  event.stage = message.stage();
  event.stage_index = message.stage_index();
  event.output_sha256 = message.output_sha256();
  return event;
}

core::AttemptEnded EndOf(const v1::AttemptStatus& message, const Sender& sender) {
  core::AttemptEnded event;
  event.worker = sender.worker;
  event.connection = sender.connection;
  event.attempt = AttemptOf(message.attempt());
  event.cause = core::CauseFromName(message.cause());
  event.detail = message.detail();
  if (message.has_report()) event.report = core::MakeBlob(message.report().SerializeAsString());
  event.artifact = message.artifact();
  event.report_path = message.report_path();
  return event;
}

core::AttemptReport ReportOf(const v1::AttemptStatus& message) {
  core::AttemptReport report;
  report.attempt = AttemptOf(message.attempt());
  report.running = message.phase() == v1::ATTEMPT_PHASE_RUNNING;
  report.has_progress = message.has_progress();
  if (report.has_progress) report.progress = ProgressOf(message.progress());
  return report;
}

}  // namespace tandem::service
