// tandem-rank: one process of an attempt, started by mpirun. Usage: tandem-rank --plan FILE
// or, alone, a writer of text: tandem-rank --generate FILE (generate.h)
//
// Reads the plan, meets the other ranks over MPI and the agent over its socket, and runs the
// pipeline. Exit codes: RankExit in worker/plan/messages.h.
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/files.h"
#include "base/log.h"
#include "worker/comm/mpi_collective.h"
#include "worker/plan/plan.h"
#include "worker/rank/event_channel.h"
#include "worker/rank/generate.h"
#include "worker/rank/guard.h"
#include "worker/rank/pipeline.h"

namespace tandem {
namespace {

// One place says what is wrong before the agent can be told: stderr, which mpirun relays.
int LeaveBeforeStart(RankExit code, const std::string& message) {
  Log(LogLevel::kError, "rank_not_started", {{"message", message}});
  return static_cast<int>(code);
}

Result<Plan> ReadPlan(int argc, char** argv) {
  if (argc != 3 || std::string(argv[1]) != "--plan") {
    return InvalidArgument("usage: tandem-rank --plan FILE, or tandem-rank --generate FILE");
  }
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(argv[2], int64_t{1} << 26));
  return PlanFromJson(text);
}

// stdout and stderr go to files of the attempt: the agent ships them, a lost mpirun loses nothing.
Status RedirectOutput(const Plan& plan, int64_t rank) {
  for (const auto& [fd, suffix] : {std::pair{STDOUT_FILENO, ".out"}, {STDERR_FILENO, ".err"}}) {
    const std::string path = JoinPath(plan.attempt_folder, "rank-" + std::to_string(rank) + suffix);
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0 || dup2(file, fd) < 0) return ErrnoStatus("open " + path);
    close(file);
  }
  return Status::Ok();
}

RankExit RunRank(const Plan& plan, Collective& collective, EventChannel& channel) {
  at::set_num_threads(static_cast<int>(plan.threads_per_rank));
  return RunGuarded(channel, [&] {
    Pipeline pipeline(plan, collective, channel, Clock::System());
    return pipeline.Run();
  });
}

int Main(int argc, char** argv) {
  // If mpirun is killed, nobody else would stop this process.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Bitwise repeatable sums: MKL must not choose fewer threads when the machine is busy.
  setenv("MKL_DYNAMIC", "FALSE", 1);
  if (argc == 3 && std::string(argv[1]) == "--generate") {
    return static_cast<int>(GenerateFromFile(argv[2]));
  }
  const Result<Plan> plan = ReadPlan(argc, argv);
  if (!plan.ok()) return LeaveBeforeStart(RankExit::kBadPlan, plan.status().ToString());

  MpiEnvironment mpi;
  const std::unique_ptr<Collective> collective = MakeMpiCollective();
  const Status redirected = RedirectOutput(*plan, collective->rank());
  if (!redirected.ok()) {
    std::_Exit(LeaveBeforeStart(RankExit::kDataOrStorage, redirected.ToString()));
  }
  auto channel = EventChannel::Connect(plan->socket, plan->epoch, collective->rank());
  if (!channel.ok()) {
    std::_Exit(LeaveBeforeStart(RankExit::kStopped, channel.status().ToString()));
  }
  const RankExit code = RunRank(*plan, *collective, **channel);
  channel->reset();
  // A failed rank must not wait for the others in MPI_Finalize: mpirun sees the code and ends them.
  if (code != RankExit::kDone && code != RankExit::kStopped) std::_Exit(static_cast<int>(code));
  return static_cast<int>(code);
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  return tandem::Main(argc, argv);
}
