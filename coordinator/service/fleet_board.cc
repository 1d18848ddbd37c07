#include "coordinator/service/fleet_board.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <utility>

#include "coordinator/service/job_names.h"

namespace tandem::service {

v1::WorkerState FleetBoard::Put(const std::string& id, v1::Worker worker) {
  MutexLock lock(mu_);
  return std::exchange(workers_[id], std::move(worker)).state();
}

void FleetBoard::Remove(const std::string& id) {
  MutexLock lock(mu_);
  workers_.erase(id);
}

Result<v1::Worker> FleetBoard::Find(const std::string& id) const {
  MutexLock lock(mu_);
  const auto found = workers_.find(id);
  if (found != workers_.end()) return found->second;
  return NotFound("there is no worker '" + id + "'; `tandem workers` shows all");
}

std::vector<v1::Worker> FleetBoard::All() const {
  MutexLock lock(mu_);
  std::vector<v1::Worker> all;
  for (const auto& [id, worker] : workers_) all.push_back(worker);
  return all;
}

std::vector<std::string> FleetBoard::Ready() const {
  MutexLock lock(mu_);
  std::vector<std::string> ready;
  for (const auto& [id, worker] : workers_) {
    if (worker.state() == v1::WORKER_STATE_READY) ready.push_back(id);
  }
  return ready;
}

void FleetBoard::FillGauges(const Clock& clock, FleetGauges* gauges) const {
  for (int state = v1::WorkerState_MIN + 1; state <= v1::WorkerState_MAX; ++state) {
    gauges->workers_by_state[StateName(static_cast<v1::WorkerState>(state))] = 0;
  }
  const int64_t now_ms = clock.WallMs();
  MutexLock lock(mu_);
  for (const auto& [id, worker] : workers_) {
    ++gauges->workers_by_state[StateName(worker.state())];
    if (!worker.has_last_heartbeat()) continue;
    const int64_t seen_ms =
        google::protobuf::util::TimeUtil::TimestampToMilliseconds(worker.last_heartbeat());
    gauges->heartbeat_age_seconds[id] =
        static_cast<double>(std::max<int64_t>(0, now_ms - seen_ms)) * 1e-3;
  }
}

void FleetBoard::Remember(const core::RequestRecord& request) {
  MutexLock lock(mu_);
  answered_.insert(request.id);
}

void FleetBoard::Forget(const std::string& request_id) {
  MutexLock lock(mu_);
  answered_.erase(request_id);
}

bool FleetBoard::HasAnswered(const std::string& request_id) const {
  MutexLock lock(mu_);
  return answered_.count(request_id) != 0;
}

}  // namespace tandem::service
