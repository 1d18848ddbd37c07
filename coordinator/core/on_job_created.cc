// JobCreated: a user's job is accepted once, however often it is asked for.
#include <string>
#include <tuple>
#include <utility>

#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

Status CheckLimits(const State& state, const JobCreated& event) {
  if (event.slots < 1)
    return InvalidArgument("slots is " + std::to_string(event.slots) + "; must be at least 1");
  if (event.gpus != 0 && event.gpus != event.slots) {
    return InvalidArgument("gpus is " + std::to_string(event.gpus) + " with slots " +
                           std::to_string(event.slots) + "; must be 0 or one per slot");
  }
  if (state.jobs.contains(event.uid)) return Internal("uid " + event.uid + " is in use");
  if (static_cast<int64_t>(state.jobs.size()) >= state.limits.max_jobs) {
    return ResourceExhausted("the coordinator holds " + std::to_string(state.jobs.size()) +
                             " jobs, its limit");
  }
  if (static_cast<int64_t>(state.queue.size()) >= state.limits.max_pending_jobs) {
    return ResourceExhausted(std::to_string(state.queue.size()) +
                             " jobs are waiting, the limit; submit again when some have started");
  }
  return Status::Ok();
}

// "name", or "name-2", "name-3", ...: names are never given back, so the first free one only grows.
std::string FreeName(State& state, const std::string& project, const std::string& wanted) {
  if (!state.job_by_name.contains({project, wanted})) return wanted;
  int64_t& suffix = state.name_suffix[{project, wanted}];
  for (suffix = suffix < 2 ? 2 : suffix;; ++suffix) {
    const std::string name = wanted + "-" + std::to_string(suffix);
    if (!state.job_by_name.contains({project, name})) return name;
  }
}

// True if the request was answered before; then it is answered again.
bool Replay(Turn& turn, const JobCreated& event) {
  const auto found = turn.state().requests.find(event.request_id);
  if (event.request_id.empty() || found == turn.state().requests.end()) return false;
  if (found->second.digest == event.request_digest) {
    turn.AnswerJob(event.token, found->second.job, /*replayed=*/true);
  } else {
    turn.Answer(event.token, InvalidArgument("request_id " + event.request_id +
                                             " was used for another spec (job " +
                                             found->second.job + "); choose a new request_id"));
  }
  return true;
}

void Remember(Turn& turn, const JobCreated& event) {
  if (event.request_id.empty()) return;
  const RequestRecord record{event.request_id, event.request_digest, event.uid, turn.now().wall_ms};
  turn.state().requests[record.id] = record;
  turn.state().requests_by_age.insert({record.wall_ms, record.id});
  turn.effects().persist.requests.push_back(record);
}

Job NewJob(State& state, const JobCreated& event, const Now& now) {
  Job job;
  job.uid = event.uid;
  job.project = event.project;
  job.name = FreeName(state, event.project, event.name);
  job.priority = event.priority;
  job.slots = event.slots;
  job.gpus = event.gpus;
  job.spec = event.spec;
  job.spec_digest = event.spec_digest;
  job.submit_revision = state.revision + 1;  // of its event "created"
  job.create_wall_ms = now.wall_ms;
  return job;
}

}  // namespace

void On(Turn& turn, const JobCreated& event) {
  if (Replay(turn, event)) return;
  State& state = turn.state();
  const Status status = CheckLimits(state, event);
  if (!status.ok()) {
    turn.Answer(event.token, status);
    return;
  }
  Job& job = state.jobs[event.uid] = NewJob(state, event, turn.now());
  state.job_by_name[{job.project, job.name}] = job.uid;
  turn.Record(job, "created", event.message);
  turn.Enqueue(job);
  Remember(turn, event);
  turn.AnswerJob(event.token, job.uid);
}

}  // namespace tandem::core
