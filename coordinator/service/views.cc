#include "coordinator/service/views.h"

#include <google/protobuf/util/time_util.h>

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

void SetTime(int64_t wall_ms, google::protobuf::Timestamp* time) {
  *time = TimeUtil::MillisecondsToTimestamp(wall_ms);
}

}  // namespace

void SetSpec(const core::Blob& bytes, const std::string& name, v1::JobSpec* spec) {
  if (bytes == nullptr || !spec->ParseFromString(*bytes)) return;
  spec->set_name(name);
}

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
  view.set_gpus(worker.gpus);
  view.set_gpus_in_use(core::GpusInUse(worker));
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

}  // namespace tandem::service
