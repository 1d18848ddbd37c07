// Publisher: carries what a committed step has changed to the readers' boards, and the core's
// commands to the agents. Confined to the state thread (it is the loop's sink); what it calls is
// locked or queues.
#pragma once

#include "coordinator/loop/loop.h"
#include "coordinator/loop/metrics.h"
#include "coordinator/service/fleet_board.h"
#include "coordinator/service/job_board.h"
#include "coordinator/service/worker_hub.h"

namespace tandem::service {

class Publisher : public EffectSink {
 public:
  Publisher(JobBoard& jobs, FleetBoard& fleet, WorkerHub& hub, Metrics& metrics)
      : jobs_(jobs), fleet_(fleet), hub_(hub), metrics_(metrics) {}

  void Load(const core::State& state, const std::vector<core::JobEvent>& events) override;
  void Publish(const core::State& state, const core::Effects& effects) override;
  void Command(const core::Command& command) override;

 private:
  void Count(const core::JobEvent& event, const core::Job& job);
  void Show(const core::WorkerName& name, const v1::Worker& worker);

  JobBoard& jobs_;
  FleetBoard& fleet_;
  WorkerHub& hub_;
  Metrics& metrics_;
};

}  // namespace tandem::service
