#include "worker/agent/local_launcher.h"

#include <csignal>
#include <utility>

#include "base/files.h"

namespace tandem::agent {
namespace {

void Parameter(std::vector<std::string>& argv, const char* name, const std::string& value) {
  argv.insert(argv.end(), {"--mca", name, value});
}

}  // namespace

std::vector<std::string> MpirunArguments(const LaunchPlan& plan, const std::string& rank_binary) {
  // By name: an absolute path makes mpirun treat its folder as a prefix for remote nodes.
  std::vector<std::string> argv = {"mpirun",    "-np",  std::to_string(plan.ranks),
                                   "--bind-to", "none", "--oversubscribe"};
  Parameter(argv, "odls_base_sigkill_timeout", "0");  // a dead rank ends the gang at once
  Parameter(argv, "orte_abort_on_non_zero_status", "1");
  Parameter(argv, "pml", "ob1");
  Parameter(argv, "btl", "self,vader,tcp");
  Parameter(argv, "btl_vader_single_copy_mechanism", "none");  // containers forbid process_vm_readv
  Parameter(argv, "mpi_yield_when_idle", "1");
  Parameter(argv, "oob_tcp_if_include", "lo");  // its ports are unauthenticated
  Parameter(argv, "btl_tcp_if_include", "lo");
  Parameter(argv, "plm", "isolated");  // this machine only: nothing is started by ssh
  Parameter(argv, "orte_tmpdir_base", plan.scratch_folder);
  for (const std::string& entry : MpirunEnvironment(plan)) {
    argv.insert(argv.end(), {"-x", entry.substr(0, entry.find('='))});
  }
  argv.insert(argv.end(), {rank_binary, "--plan", plan.plan_path});
  return argv;
}

std::vector<std::string> MpirunEnvironment(const LaunchPlan& plan) {
  std::vector<std::string> environment = InheritedEnvironment(InheritedNames());
  const std::string threads = std::to_string(plan.threads_per_rank);
  const std::vector<std::string> ours = {
      plan.mark, "CUDA_VISIBLE_DEVICES=" + GpuText(plan.gpus), "OMP_NUM_THREADS=" + threads,
      "MKL_NUM_THREADS=" + threads, "MKL_DYNAMIC=FALSE",
      // Idle threads sleep soon instead of burning the cores that
      // other programs wait for; alone, no slower (measured).
      "GOMP_SPINCOUNT=2000", "TMPDIR=" + plan.scratch_folder, "OMPI_ALLOW_RUN_AS_ROOT=1",
      "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "HWLOC_HIDE_ERRORS=2", "PMIX_MCA_gds=hash",
      "PMIX_MCA_psec=native"};
  environment.insert(environment.end(), ours.begin(), ours.end());
  return environment;
}

Result<LaunchHandle> LocalLauncher::Start(const LaunchPlan& plan, Children::OnExit on_exit) {
  Command command;
  command.argv = MpirunArguments(plan, rank_binary_);
  command.environment = MpirunEnvironment(plan);
  command.folder = plan.attempt_folder;
  command.out_path = JoinPath(plan.attempt_folder, "mpirun.out");
  command.err_path = JoinPath(plan.attempt_folder, "mpirun.err");
  TANDEM_ASSIGN_OR_RETURN(const StartedChild child, children_.Start(command, std::move(on_exit)));
  return static_cast<LaunchHandle>(child.pid);
}

void LocalLauncher::Signal(LaunchHandle handle, int signal) {
  kill(static_cast<pid_t>(handle), signal);  // mpirun relays it
}

void LocalLauncher::Kill(LaunchHandle handle) {
  kill(-static_cast<pid_t>(handle), SIGKILL);
}

}  // namespace tandem::agent
