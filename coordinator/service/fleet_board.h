// FleetBoard: what readers see of the workers, and which create requests have been answered. As
// JobBoard, without watchers. Updated by the state thread after each commit. Locked by mu_; readers
// copy.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "coordinator/core/effect.h"
#include "coordinator/loop/metrics.h"
#include "tandem/v1/fleet.pb.h"

namespace tandem::service {

class FleetBoard {
 public:
  // id: the worker's, as agents and the core spell it (without "workers/"). Returns its state
  // before; UNSPECIFIED: it is new.
  v1::WorkerState Put(const std::string& id, v1::Worker worker);
  void Remove(const std::string& id);
  Result<v1::Worker> Find(const std::string& id) const;
  std::vector<v1::Worker> All() const;
  // Ids of READY workers, sorted.
  std::vector<std::string> Ready() const;
  void FillGauges(const Clock& clock, FleetGauges* gauges) const;

  void Remember(const core::RequestRecord& request);
  void Forget(const std::string& request_id);
  bool HasAnswered(const std::string& request_id) const;

 private:
  mutable Mutex mu_;
  std::map<std::string, v1::Worker> workers_ TANDEM_GUARDED_BY(mu_);
  std::set<std::string> answered_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::service
