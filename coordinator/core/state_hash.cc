#include "coordinator/core/state_hash.h"

#include <bit>

namespace tandem::core {
namespace {

template <typename E>
int64_t Number(E value) {
  return static_cast<int64_t>(value);
}

void AddBlob(Hasher& hasher, const Blob& blob) {
  hasher.Add(blob == nullptr ? int64_t{0} : int64_t{1});
  if (blob != nullptr) hasher.Add(*blob);
}

void AddProgress(Hasher& hasher, const Progress& p) {
  hasher.Add(p.stage).Add(p.stage_index).Add(p.stage_count).Add(p.step).Add(p.steps);
  for (const double number : {p.loss, p.tokens_per_second, p.eta_seconds, p.step_seconds}) {
    hasher.Add(std::bit_cast<int64_t>(number));
  }
  hasher.Add(p.checkpoint_step);
}

void AddDurable(Hasher& hasher, const Job& job) {
  hasher.Add(job.uid).Add(job.project).Add(job.name).Add(job.priority);
  hasher.Add(job.slots).Add(job.gpus);
  AddBlob(hasher, job.spec);
  hasher.Add(job.spec_digest).Add(job.submit_revision).Add(job.create_wall_ms);
  hasher.Add(Number(job.state)).Add(job.revision).Add(job.epoch);
  hasher.Add(Number(job.attempt.state)).Add(job.attempt.worker).Add(job.attempt.incarnation);
  hasher.Add(Number(job.attempt.cause)).Add(job.message).Add(job.reason);
  hasher.Add(job.start_wall_ms).Add(job.end_wall_ms).Add(job.ends_in_a_row).Add(job.charged_ends);
  hasher.Add(job.committed_stage).Add(job.committed_step).Add(job.checkpoint);
  AddBlob(hasher, job.report);
  hasher.Add(job.artifact).Add(job.report_path);
}

void AddLive(Hasher& hasher, const Job& job) {
  AddProgress(hasher, job.progress);
  hasher.Add(job.active_stage)
      .Add(job.epoch_stage)
      .Add(job.epoch_step)
      .Add(job.backoff_until_ms)
      .Add(job.cancel_deadline_ms);
  hasher.Add(Number(job.pending_reason)).Add(job.pending_detail);
}

void AddDurable(Hasher& hasher, const Worker& worker) {
  hasher.Add(worker.name).Add(worker.incarnation).Add(worker.former_incarnation);
  hasher.Add(worker.slots).Add(worker.gpus);
  hasher.Add(worker.host).Add(worker.version).Add(worker.device).Add(worker.metrics_address);
  hasher.Add(Number(worker.drain));
}

void AddLive(Hasher& hasher, const Worker& worker) {
  hasher.Add(static_cast<int64_t>(worker.connection)).Add(Number(worker.liveness));
  hasher.Add(worker.last_seen_ms).Add(worker.last_seen_wall_ms);
  for (const auto& [attempt, occupant] : worker.occupants) {
    hasher.Add(attempt.job).Add(attempt.epoch).Add(occupant.slots).Add(occupant.gpus);
    hasher.Add(Number(occupant.owned)).Add(Number(occupant.settled)).Add(occupant.absent_since_ms);
  }
}

void AddRequest(Hasher& hasher, const RequestRecord& request) {
  hasher.Add(request.id).Add(request.digest).Add(request.job).Add(request.wall_ms);
}

struct AddCommand {
  Hasher& hasher;
  void AddRef(const AttemptRef& attempt) const { hasher.Add(attempt.job).Add(attempt.epoch); }
  void operator()(const LaunchAttempt& launch) const { AddRef(launch.attempt); }
  void operator()(const StopAttempt& stop) const {
    AddRef(stop.attempt);
    hasher.Add(Number(stop.kind)).Add(stop.reason);
  }
  void operator()(const FenceAttempts& fence) const { hasher.Add(fence.job).Add(fence.epoch); }
  void operator()(const AckAttempt& ack) const { AddRef(ack.attempt); }
  void operator()(const AckHeartbeat& ack) const { hasher.Add(ack.sequence); }
  void operator()(const ConfirmRegistration& confirm) const { hasher.Add(confirm.generation); }
  void operator()(const RefuseConnection& refuse) const { hasher.Add(refuse.status.message()); }
};

}  // namespace

Hasher& Hasher::Add(std::string_view text) {
  Add(static_cast<int64_t>(text.size()));
  for (const char c : text) {
    value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return *this;
}

Hasher& Hasher::Add(int64_t number) {
  const auto bits = static_cast<uint64_t>(number);
  for (int shift = 0; shift < 64; shift += 8) {
    value_ = (value_ ^ ((bits >> shift) & 0xff)) * 0x100000001b3;
  }
  return *this;
}

uint64_t StateHash(const State& state) {
  Hasher hasher;
  hasher.Add(state.revision).Add(state.oldest_event).Add(state.generation);
  hasher.Add(state.counters.stale_messages).Add(state.last_tick_ms);
  for (const auto& [uid, job] : state.jobs) {
    AddDurable(hasher, job);
    AddLive(hasher, job);
  }
  for (const auto& [name, worker] : state.workers) {
    AddDurable(hasher, worker);
    AddLive(hasher, worker);
  }
  for (const auto& [id, request] : state.requests) AddRequest(hasher, request);
  return hasher.value();
}

uint64_t EffectsHash(const Effects& effects) {
  Hasher hasher;
  for (const Job& job : effects.persist.jobs) AddDurable(hasher, job);
  for (const Worker& worker : effects.persist.workers) AddDurable(hasher, worker);
  for (const RequestRecord& request : effects.persist.requests) AddRequest(hasher, request);
  for (const JobEvent& event : effects.persist.events) {
    hasher.Add(event.revision).Add(event.job).Add(event.kind).Add(event.message);
  }
  for (const Reply& reply : effects.replies) {
    hasher.Add(static_cast<int64_t>(reply.token)).Add(Number(reply.status.code()));
    hasher.Add(reply.job).Add(reply.worker);
  }
  for (const Command& command : effects.commands) {
    hasher.Add(command.worker).Add(static_cast<int64_t>(command.connection));
    hasher.Add(static_cast<int64_t>(command.what.index()));
    std::visit(AddCommand{hasher}, command.what);
  }
  return hasher.value();
}

}  // namespace tandem::core
