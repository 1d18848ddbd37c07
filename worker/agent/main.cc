// tandem-worker: the agent of one machine. Reads its flags, checks that it can work, and serves its
// coordinator.
//
// Exit codes: 0 drained, 1 it could not go on (said on stderr), 2 bad flags or an unusable Python.
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "base/digest.h"
#include "base/files.h"
#include "base/log.h"
#include "base/parent_process.h"
#include "worker/agent/agent.h"
#include "worker/agent/flags.h"
#include "worker/agent/gpu_pool.h"
#include "worker/agent/local_launcher.h"
#include "worker/agent/python_check.h"
#include "worker/agent/worker_folder.h"

namespace tandem::agent {
namespace {

const std::vector<int> kSignals = {SIGCHLD, SIGTERM, SIGINT};
constexpr int64_t kTickMs = 50;

int Fail(int code, const std::string& message) {
  std::fprintf(stderr, "tandem-worker: %s\n", message.c_str());
  return code;
}

std::string NewIncarnation(const Clock& clock) {
  return Sha256Hex(std::to_string(getpid()) + " " + std::to_string(clock.WallMs()) + " " +
                   std::to_string(clock.MonotonicNs()))
      .substr(0, 16);
}

AgentConfig ConfigOf(const AgentFlags& flags, size_t gpus, const std::string& worker_folder,
                     const std::string& metrics_address, const Clock& clock) {
  AgentConfig config;
  config.coordinator = flags.coordinator;
  config.registration.set_worker(flags.name);
  config.registration.set_slots(flags.slots);
  config.registration.set_host(HostName());
  config.registration.set_version(TANDEM_VERSION);
  config.registration.set_device(gpus > 0 ? "cuda" : "cpu");
  config.registration.set_gpus(static_cast<int64_t>(gpus));
  config.registration.set_incarnation(NewIncarnation(clock));
  config.registration.set_metrics_address(metrics_address);
  config.orphan_ms = flags.orphan_ms;
  config.attempts = {.jobs_folder = JoinPath(flags.work, "jobs"),
                     .cache_folder = JoinPath(flags.work, "cache/tokens"),
                     .stage_cache = JoinPath(flags.work, "cache/stages"),
                     .worker_folder = worker_folder,
                     .runtime = flags.runtime,
                     .python = flags.python,
                     .python_path = flags.python_path,
                     .threads_per_slot = flags.threads_per_slot,
                     .hang_ms = flags.hang_ms,
                     .stop_ms = flags.stop_ms,
                     .log_bytes = flags.log_bytes};
  return config;
}

int Serve(const AgentFlags& flags, const std::vector<GpuId>& gpus) {
  const Clock& clock = Clock::System();
  const std::string python_fault = PythonFault(flags.python, flags.python_path);
  if (!python_fault.empty()) return Fail(2, python_fault);
  auto folder = WorkerFolder::Open(JoinPath(flags.work, "workers/" + flags.name), flags.runtime);
  if (!folder.ok()) return Fail(1, folder.status().message());
  auto outbox = Outbox::Open(JoinPath((*folder)->path(), "outbox"));
  if (!outbox.ok()) return Fail(1, outbox.status().message());
  auto loop = EventLoop::Make(kSignals);
  if (!loop.ok()) return Fail(1, loop.status().message());
  auto metrics = Metrics::Listen(flags.metrics, TANDEM_VERSION, clock.WallMs());
  if (!metrics.ok()) return Fail(1, metrics.status().message());
  const Status written = (*folder)->WriteEndpoints((*metrics)->address());
  if (!written.ok()) return Fail(1, written.message());

  GpuPool gpu_pool(gpus);
  Children children;
  LocalLauncher launcher(children, flags.rank);
  Errands errands;
  Agent agent(ConfigOf(flags, gpus.size(), (*folder)->path(), (*metrics)->address(), clock),
              {clock, **loop, children, launcher, gpu_pool, errands}, **metrics,
              std::move(*outbox));
  Log(LogLevel::kInfo, "worker_started",
      {{"name", flags.name},
       {"coordinator", flags.coordinator},
       {"slots", flags.slots},
       {"gpus", GpuText(gpus)},
       {"threads_per_slot", flags.threads_per_slot},
       {"work", flags.work},
       {"metrics", (*metrics)->address()},
       {"python", flags.python},
       {"rank", flags.rank}});
  (*loop)->Run([&](int number) { number == SIGCHLD ? children.Reap() : agent.Drain(); },
               [&] { agent.Tick(); }, kTickMs);
  Log(LogLevel::kInfo, "worker_ended");
  // Its HTTP server's destructor waits up to 2 s for a poll of its own; the process ends anyway.
  static_cast<void>(metrics->release());
  return 0;
}

int Main(int argc, char** argv) {
  const std::string binary = std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
  const ParsedFlags parsed = ParseFlags(argc, argv, binary);
  if (!parsed.help.empty()) {
    std::fputs(parsed.help.c_str(), stdout);
    return 0;
  }
  for (const std::string& error : parsed.errors) Fail(2, error);
  if (!parsed.errors.empty()) return 2;
  if (parsed.flags.die_with_parent && !DieWithParent()) {
    return Fail(1, "the starting process is gone");
  }
  // Before signals are blocked: what is run to ask inherits the mask and waits for children itself.
  const std::vector<GpuId> gpus = GpusOf(parsed.flags);
  // Before the first thread: all of them inherit the mask.
  EventLoop::BlockSignals(kSignals);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  return Serve(parsed.flags, gpus);
}

}  // namespace
}  // namespace tandem::agent

int main(int argc, char** argv) {
  return tandem::agent::Main(argc, argv);
}
