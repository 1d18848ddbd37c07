#include "coordinator/service/views.h"

#include <google/protobuf/util/time_util.h>

#include <type_traits>

#include "coordinator/service/job_names.h"

namespace tandem::service {
namespace {

using google::protobuf::util::TimeUtil;

v1::JobState StateOf(core::JobState state) {
  switch (state) {
    case core::JobState::kPending:
      return v1::JOB_STATE_PENDING;
    case core::JobState::kAdmitted:
      return v1::JOB_STATE_ADMITTED;
    case core::JobState::kRunning:
      return v1::JOB_STATE_RUNNING;
    case core::JobState::kCancelling:
      return v1::JOB_STATE_CANCELLING;
    case core::JobState::kCancelled:
      return v1::JOB_STATE_CANCELLED;
    case core::JobState::kSucceeded:
      return v1::JOB_STATE_SUCCEEDED;
    case core::JobState::kFailed:
      return v1::JOB_STATE_FAILED;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

v1::WorkerState ViewOfState(core::WorkerState state) {
  switch (state) {
    case core::WorkerState::kReady:
      return v1::WORKER_STATE_READY;
    case core::WorkerState::kSuspect:
      return v1::WORKER_STATE_SUSPECT;
    case core::WorkerState::kLost:
      return v1::WORKER_STATE_LOST;
    case core::WorkerState::kDraining:
      return v1::WORKER_STATE_DRAINING;
    case core::WorkerState::kDrained:
      return v1::WORKER_STATE_DRAINED;
  }
  return v1::WORKER_STATE_UNSPECIFIED;
}

void SetProgress(const core::Progress& from, v1::JobProgress* to) {
  to->set_stage(from.stage);
  to->set_stage_index(from.stage_index);
  to->set_stage_count(from.stage_count);
  to->set_step(from.step);
  to->set_steps(from.steps);
  to->set_loss(from.loss);
  to->set_tokens_per_second(from.tokens_per_second);
  to->set_eta_seconds(from.eta_seconds);
  to->set_checkpoint_step(from.checkpoint_step);
  to->set_step_seconds(from.step_seconds);
}

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

void SetTime(int64_t wall_ms, google::protobuf::Timestamp* time) {
  *time = TimeUtil::MillisecondsToTimestamp(wall_ms);
}

void SetAttempt(const core::AttemptRef& from, v1::AttemptRef* to) {
  to->set_job_uid(from.job);
  to->set_epoch(from.epoch);
}

core::AttemptRef AttemptOf(const v1::AttemptRef& from) {
  return {from.job_uid(), from.epoch()};
}

// A stored spec under the name that the job got.
void SetSpec(const core::Blob& bytes, const std::string& name, v1::JobSpec* spec) {
  if (bytes == nullptr || !spec->ParseFromString(*bytes)) return;
  spec->set_name(name);
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

void Fill(const core::ConfirmRegistration& confirm, v1::ChannelResponse* message) {
  v1::Registered& to = *message->mutable_registered();
  to.set_lease_ms(confirm.lease_ms);
  to.set_heartbeat_ms(confirm.heartbeat_ms);
  to.set_coordinator_generation(std::to_string(confirm.generation));
}

void Fill(const core::RefuseConnection&, v1::ChannelResponse*) {}

}  // namespace

v1::Job ViewOf(const core::Job& job) {
  v1::Job view;
  view.set_name(JobName(job.project, job.name));
  view.set_uid(job.uid);
  view.set_etag(std::to_string(job.revision));
  view.set_state(StateOf(job.state));
  SetSpec(job.spec, job.name, view.mutable_spec());
  view.set_epoch(job.epoch);
  SetTime(job.create_wall_ms, view.mutable_create_time());
  if (job.start_wall_ms != 0) SetTime(job.start_wall_ms, view.mutable_start_time());
  if (job.end_wall_ms != 0) SetTime(job.end_wall_ms, view.mutable_end_time());
  view.set_message(core::MessageOf(job));
  view.set_reason(core::ReasonOf(job));
  if (!job.progress.stage.empty()) SetProgress(job.progress, view.mutable_progress());
  if (job.report != nullptr && !view.mutable_report()->ParseFromString(*job.report)) {
    view.clear_report();
  }
  view.set_artifact(job.artifact);
  view.set_report_path(job.report_path);
  view.set_worker(job.attempt.worker);
  view.set_revision(job.revision);
  view.set_slots(job.slots);
  return view;
}

v1::JobEvent ViewOf(const core::JobEvent& event) {
  v1::JobEvent view;
  view.set_revision(event.revision);
  SetTime(event.wall_ms, view.mutable_time());
  view.set_kind(event.kind);
  view.set_message(event.message);
  view.set_epoch(event.epoch);
  return view;
}

v1::Worker ViewOf(const core::Worker& worker, const core::State& state) {
  v1::Worker view;
  view.set_name("workers/" + worker.name);
  view.set_state(ViewOfState(core::StateOf(worker)));
  view.set_slots(worker.slots);
  view.set_slots_in_use(core::SlotsInUse(worker));
  view.set_host(worker.host);
  view.set_version(worker.version);
  if (worker.last_seen_wall_ms != 0) {
    SetTime(worker.last_seen_wall_ms, view.mutable_last_heartbeat());
  }
  for (const auto& [attempt, occupant] : worker.occupants) {
    const auto job = state.jobs.find(attempt.job);
    if (job != state.jobs.end()) view.add_jobs(JobName(job->second.project, job->second.name));
  }
  view.set_device(worker.device);
  view.set_metrics_address(worker.metrics_address);
  return view;
}

v1::ChannelResponse ViewOf(const core::Command& command) {
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
  event.host = message.host();
  event.version = message.version();
  event.device = message.device();
  event.metrics_address = message.metrics_address();
  for (const v1::AttemptRef& attempt : message.live()) event.live.push_back(AttemptOf(attempt));
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
