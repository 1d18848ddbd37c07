#include "coordinator/service/publisher.h"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "coordinator/service/agent_messages.h"
#include "coordinator/service/job_names.h"
#include "coordinator/service/rich_error.h"
#include "coordinator/service/views.h"

namespace tandem::service {
namespace {

BoardRow RowOf(const core::Job& job) {
  return {job.submit_revision, std::make_shared<const v1::Job>(ViewOf(job))};
}

// STOPPED is an end that was asked for: by a drain, a cancel.
bool IsFailure(const core::JobEvent& event) {
  if (event.kind == "failed") return true;
  return event.kind == "attempt_ended" && event.reason != core::Name(core::Cause::kOk) &&
         event.reason != core::Name(core::Cause::kStopped);
}

void LogEvent(const core::JobEvent& event, const core::Job& job) {
  Log(IsFailure(event) ? LogLevel::kWarning : LogLevel::kInfo, "job_changed",
      {{"job", job.uid},
       {"name", job.name},
       {"kind", event.kind},
       {"epoch", event.epoch},
       {"state", core::Name(event.after)},
       {"reason", event.reason},
       {"worker", job.attempt.worker},
       {"revision", event.revision}});
}

}  // namespace

void Publisher::Load(const core::State& state, const std::vector<core::JobEvent>& events) {
  std::vector<BoardRow> rows;
  for (const auto& [uid, job] : state.jobs) rows.push_back(RowOf(job));
  std::vector<v1::JobEvent> views;
  std::vector<std::string> uids;
  for (const core::JobEvent& event : events) {
    views.push_back(ViewOf(event));
    uids.push_back(event.job);
  }
  jobs_.Load(rows, std::move(views), uids, state.revision);
  for (const auto& [name, worker] : state.workers) fleet_.Put(name, ViewOf(worker, state));
  for (const auto& [id, request] : state.requests) fleet_.Remember(request);
}

void Publisher::Publish(const core::State& state, const core::Effects& effects) {
  std::map<core::JobUid, std::pair<const core::Job*, BoardRow>> rows;
  for (const core::Job& job : effects.persist.jobs) rows[job.uid] = {&job, RowOf(job)};
  for (const core::JobEvent& event : effects.persist.events) {
    const auto row = rows.find(event.job);
    TANDEM_CHECK_MSG(row != rows.end(), "event of a job that was not persisted: " + event.job);
    Count(event, *row->second.first);
    LogEvent(event, *row->second.first);
    jobs_.Publish(row->second.second, ViewOf(event));
  }
  for (const core::JobUid& uid : effects.touched_jobs) {
    const auto job = state.jobs.find(uid);
    if (job != state.jobs.end()) jobs_.Refresh(RowOf(job->second));
  }
  for (const core::WorkerName& name : effects.touched_workers) {
    const auto worker = state.workers.find(name);
    if (worker != state.workers.end()) Show(name, ViewOf(worker->second, state));
  }
  for (const core::WorkerName& name : effects.removed_workers) fleet_.Remove(name);
  for (const core::RequestRecord& request : effects.persist.requests) fleet_.Remember(request);
  for (const std::string& id : effects.persist.forgotten_requests) fleet_.Forget(id);
}

void Publisher::Show(const core::WorkerName& name, const v1::Worker& worker) {
  const v1::WorkerState before = fleet_.Put(name, worker);
  if (before == worker.state()) return;
  const bool is_lost = worker.state() == v1::WORKER_STATE_LOST;
  Log(is_lost ? LogLevel::kWarning : LogLevel::kInfo, "worker_changed",
      {{"worker", name}, {"before", StateName(before)}, {"state", StateName(worker.state())}});
}

void Publisher::Count(const core::JobEvent& event, const core::Job& job) {
  if (event.kind == "created") {
    metrics_.CountTransition("NONE", core::Name(event.after), event.reason);
  } else if (event.before != event.after) {
    metrics_.CountTransition(core::Name(event.before), core::Name(event.after), event.reason);
  }
  if (event.kind == "attempt_ended" && IsFailure(event)) {
    metrics_.CountAttemptFailure(event.reason);
  }
  if (event.kind != "succeeded" || job.report == nullptr) return;
  const v1::Job view = ViewOf(job);
  metrics_.CountVerdict(view.spec().recipe(), view.report().verdict());
}

void Publisher::Command(const core::Command& command) {
  if (const auto* refused = std::get_if<core::RefuseConnection>(&command.what)) {
    Log(LogLevel::kWarning, "worker_refused",
        {{"worker", command.worker}, {"error", refused->status.ToString()}});
    return hub_.Refuse(command.connection, ToGrpc(refused->status));
  }
  if (std::holds_alternative<core::ConfirmRegistration>(command.what)) {
    hub_.Confirm(command.worker, command.connection);
  }
  hub_.Send(command.connection, MessageOf(command));
}

}  // namespace tandem::service
