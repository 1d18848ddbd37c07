// Launcher: starts the ranks of an attempt, wherever they run.
//
// One implementation per way to start them (local_launcher.h: this machine, by mpirun). Ends arrive
// as events: on_exit is called on the loop's thread with the exit of whatever stands for the whole
// gang. Confined to the loop's thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/gpus.h"
#include "base/status.h"
#include "worker/agent/children.h"

namespace tandem::agent {

struct LaunchPlan {
  std::string plan_path;       // plan.json, the same for every rank
  std::string attempt_folder;  // mpirun.{out,err} go here
  std::string scratch_folder;  // short; for the launcher's temporary files; removed by the caller
                               // after the end
  std::string mark;            // environment entry that all processes of the attempt carry
  std::vector<GpuId> gpus;     // one per rank, or none: the ranks see no others
  int64_t ranks = 1;
  int64_t threads_per_rank = 1;
};

// Names a gang while it lives.
using LaunchHandle = int64_t;

class Launcher {
 public:
  virtual ~Launcher() = default;
  virtual Result<LaunchHandle> Start(const LaunchPlan& plan, Children::OnExit on_exit) = 0;
  // To every rank.
  virtual void Signal(LaunchHandle handle, int signal) = 0;
  // SIGKILL to what was started here; what its descendants left is found by the mark
  // (marked_processes.h).
  virtual void Kill(LaunchHandle handle) = 0;
};

}  // namespace tandem::agent
