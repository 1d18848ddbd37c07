// Views: what people see of the core's plain values, as messages of tandem.v1. Pure.
#pragma once

#include <string>

#include "coordinator/core/effect.h"
#include "coordinator/core/state.h"
#include "tandem/v1/fleet.pb.h"
#include "tandem/v1/job.pb.h"

namespace tandem::service {

v1::Job ViewOf(const core::Job& job);
v1::JobEvent ViewOf(const core::JobEvent& event);
// `state` names the jobs that the worker runs.
v1::Worker ViewOf(const core::Worker& worker, const core::State& state);

// A stored spec, under the name that the job got; left as it is where the bytes are none.
void SetSpec(const core::Blob& bytes, const std::string& name, v1::JobSpec* spec);

}  // namespace tandem::service
