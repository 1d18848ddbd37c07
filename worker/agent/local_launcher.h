// LocalLauncher: one plain `mpirun -np N` on this machine, for one rank too (one path, one set of
// exit codes).
#pragma once

#include <string>
#include <vector>

#include "worker/agent/launcher.h"

namespace tandem::agent {

class LocalLauncher : public Launcher {
 public:
  LocalLauncher(Children& children, std::string rank_binary)
      : children_(children), rank_binary_(std::move(rank_binary)) {}
  Result<LaunchHandle> Start(const LaunchPlan& plan, Children::OnExit on_exit) override;
  void Signal(LaunchHandle handle, int signal) override;
  void Kill(LaunchHandle handle) override;

 private:
  Children& children_;
  const std::string rank_binary_;
};

// Open MPI 4.1's command line and environment; visible for tests.
std::vector<std::string> MpirunArguments(const LaunchPlan& plan, const std::string& rank_binary);
std::vector<std::string> MpirunEnvironment(const LaunchPlan& plan);

}  // namespace tandem::agent
