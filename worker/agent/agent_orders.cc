// Agent, the part that does as it is told: launches, stops and fences of the coordinator, and what
// it asks.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "spec/spec.h"
#include "worker/agent/agent.h"
#include "worker/agent/log_reader.h"

namespace tandem::agent {

void Agent::OnLaunch(const v1::Launch& launch) {
  const Key key{launch.attempt().job_uid(), launch.attempt().epoch()};
  if (attempts_.contains(key)) return;          // repeated
  if (outbox_.pending().contains(key)) return;  // its end is on its way
  if (key.second <= newest_epoch_[key.first]) {
    return RefuseLaunch(launch, "FENCED",
                        "a newer attempt of this job was launched or this one has ended");
  }
  newest_epoch_[key.first] = key.second;
  if (draining_) return RefuseLaunch(launch, "STOPPED", "the worker is draining");
  Fence(key.first, key.second, "a newer attempt was launched");
  attempts_[key] = std::make_shared<Attempt>(
      config_.attempts, tools_, launch, next_scratch_++,
      Attempt::Listener{
          .changed = [this](const Attempt& attempt) { OnAttemptChanged(attempt); },
          .committed =
              [this](v1::ChannelRequest request) { SendUntilConfirmed(std::move(request)); },
          .ended = [this](const v1::AttemptStatus& ended) { OnAttemptEnded(ended); }});
  BeginWaiting();
}

void Agent::RefuseLaunch(const v1::Launch& launch, const std::string& cause,
                         const std::string& detail) {
  v1::AttemptStatus ended;
  *ended.mutable_attempt() = launch.attempt();
  ended.set_phase(v1::ATTEMPT_PHASE_ENDED);
  ended.set_cause(cause);
  ended.set_detail(detail);
  OnAttemptEnded(ended);
}

void Agent::BeginWaiting() {
  for (const auto& [key, attempt] : attempts_) {
    if (attempt->has_begun()) continue;
    // Epochs are in order: an older attempt of the job stands right before.
    const auto older = attempts_.lower_bound(Key{key.first, 0});
    if (older->first == key) return attempt->Begin();  // it may end at once; the next tick goes on
  }
}

void Agent::Fence(const std::string& job_uid, int64_t epoch, const std::string& reason) {
  int64_t& newest = newest_epoch_[job_uid];
  newest = std::max(newest, epoch - 1);
  std::vector<std::shared_ptr<Attempt>> stale;
  for (const auto& [key, attempt] : attempts_) {
    if (key.first == job_uid && key.second < epoch) stale.push_back(attempt);
  }
  for (const auto& attempt : stale) attempt->Finish("FENCED", reason);
}

void Agent::OnStop(const v1::Stop& stop) {
  const auto found = attempts_.find({stop.attempt().job_uid(), stop.attempt().epoch()});
  if (found == attempts_.end()) return;  // it has ended; the outbox says so
  const auto attempt = found->second;
  const std::string reason = stop.reason().empty() ? "stopped by the coordinator" : stop.reason();
  if (stop.kind() == v1::Stop::KIND_CHECKPOINT_AND_STOP) {
    attempt->StopWithCheckpoint(reason);
  } else {
    attempt->Finish("STOPPED", reason);
  }
}

void Agent::OnInspect(const v1::Inspect& inspect) {
  const auto answer = [this, stream = stream_](const v1::InspectResult& result) {
    v1::ChannelRequest request;
    *request.mutable_inspect_result() = result;
    channel_->Send(stream, std::move(request));
  };
  const bool queued = tools_.errands.Run([inspect, answer, &loop = tools_.loop] {
    v1::InspectResult result;
    result.set_request_id(inspect.request_id());
    for (const Violation& violation : InspectPaths(inspect.spec())) {
      v1::Violation& to = *result.add_violations();
      to.set_field(violation.field);
      to.set_message(violation.message);
    }
    loop.Post([answer, result] { answer(result); });
  });
  if (!queued) Log(LogLevel::kWarning, "inspect_dropped", {{"request", inspect.request_id()}});
}

void Agent::OnReadLogs(const v1::ReadLogs& request) {
  const auto answer = [this, stream = stream_](const v1::LogChunk& chunk) {
    v1::ChannelRequest message;
    *message.mutable_log_chunk() = chunk;
    channel_->Send(stream, std::move(message));
  };
  const bool queued = tools_.errands.Run(
      [request, answer, jobs = config_.attempts.jobs_folder, &loop = tools_.loop] {
        loop.Post([answer, chunk = ReadChunk(jobs, request)] { answer(chunk); });
      });
  if (!queued) Log(LogLevel::kWarning, "read_dropped", {{"request", request.request_id()}});
}

}  // namespace tandem::agent
