#include "worker/agent/flags.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <thread>

#include "base/daemon_flags.h"
#include "base/files.h"
#include "base/flag_text.h"
#include "worker/agent/worker_folder.h"

namespace tandem::agent {
namespace {

// A socket's path has at most 107 bytes; below the runtime folder we need about 30.
constexpr size_t kMaxRuntimeBytes = 72;

std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void FillDefaults(AgentFlags& flags, const std::string& binary_folder) {
  const auto root = AbsolutePath(JoinPath(binary_folder, "../.."));
  if (flags.name.empty()) flags.name = HostName().substr(0, kMaxNameBytes);
  if (flags.python.empty()) flags.python = FromEnvironment("TANDEM_PYTHON");
  if (flags.python.empty()) flags.python = root + "/.venv/bin/python";
  flags.python_path = FromEnvironment("TANDEM_PYTHONPATH");
  if (flags.python_path.empty()) flags.python_path = root + "/python";
  if (flags.rank.empty()) flags.rank = JoinPath(binary_folder, "tandem-rank");
  if (flags.runtime.empty()) {
    flags.runtime = DefaultRuntimePrefix() + std::to_string(getpid());
  }
  if (flags.threads_per_slot == 0) {
    const int64_t cores = std::max(1u, std::thread::hardware_concurrency());
    flags.threads_per_slot = std::max<int64_t>(1, cores / std::max<int64_t>(1, flags.slots));
  }
  if (!flags.work.empty()) flags.work = AbsolutePath(flags.work);
  flags.runtime = AbsolutePath(flags.runtime);
}

void CheckGpus(const std::string& gpus, std::vector<std::string>& errors) {
  if (gpus == "auto" || gpus == "none") return;
  const std::vector<GpuId> named = GpuList(gpus);
  const std::set<GpuId> distinct(named.begin(), named.end());
  if (!named.empty() && distinct.size() == named.size() && !distinct.contains("")) return;
  errors.push_back("--gpus is '" + gpus +
                   "'; must be auto, none, or each GPU once by index or UUID, as in 0,1");
}

void Check(const AgentFlags& flags, std::vector<std::string>& errors) {
  std::string host;
  int port = 0;
  if (flags.coordinator.empty()) {
    errors.push_back("--coordinator is missing; name the coordinator's HOST:PORT");
  } else if (!SplitAddress(flags.coordinator, &host, &port) || port == 0) {
    errors.push_back("--coordinator is '" + flags.coordinator +
                     "'; must be HOST:PORT, as in 127.0.0.1:7600");
  }
  if (flags.work.empty()) {
    errors.push_back("--work is missing; name the folder for jobs, checkpoints and results");
  } else if (PathExists(flags.work) && !IsFolder(flags.work)) {
    errors.push_back("--work is '" + flags.work + "', which is a file; must be a folder");
  }
  if (!IsName(flags.name)) {
    errors.push_back(
        "--name is '" + flags.name +
        "'; must be 1 to 63 letters, digits, '-', '_' or '.', starting with a letter or digit");
  }
  CheckGpus(flags.gpus, errors);
  CheckServedAddress(flags.metrics, "--metrics", errors);
  if (flags.runtime.size() > kMaxRuntimeBytes) {
    errors.push_back("--runtime is '" + flags.runtime + "', of " +
                     std::to_string(flags.runtime.size()) + " bytes; at most " +
                     std::to_string(kMaxRuntimeBytes) + ", because sockets lie in it");
  }
  if (access(flags.python.c_str(), X_OK) != 0) {
    errors.push_back("no Python at " + flags.python +
                     "; pass --python or set TANDEM_PYTHON to an interpreter with tokenizers");
  }
  if (access(flags.rank.c_str(), X_OK) != 0) {
    errors.push_back("no tandem-rank at " + flags.rank + "; build it, or pass --rank");
  }
}

}  // namespace

std::vector<GpuId> GpusOf(const AgentFlags& flags) {
  if (flags.gpus == "none") return {};
  return flags.gpus == "auto" ? VisibleGpus() : GpuList(flags.gpus);
}

std::string HostName() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

ParsedFlags ParseFlags(int argc, const char* const* argv, const std::string& binary_folder) {
  ParsedFlags parsed;
  AgentFlags& flags = parsed.flags;
  std::string slots, threads, hang, orphan, stop, log;
  CLI::App app("tandem-worker: runs the attempts that a coordinator places on this machine.");
  app.add_option("--coordinator", flags.coordinator, "the coordinator's HOST:PORT");
  app.add_option("--work", flags.work, "folder for jobs, checkpoints and results");
  app.add_option("--name", flags.name, "this worker's name [the host's]");
  app.add_option("--slots", slots, "ranks that may run at once [1]");
  app.add_option("--gpus", flags.gpus,
                 "GPUs for the slots, one each: auto (all that nvidia-smi lists and "
                 "CUDA_VISIBLE_DEVICES leaves), none, or their indexes or UUIDs: 0,1")
      ->capture_default_str();
  app.add_option("--threads-per-slot", threads, "threads of a rank [cores / slots]");
  app.add_option("--python", flags.python, "interpreter for data preparation and reports");
  app.add_option("--rank", flags.rank, "the rank's binary [beside this one]");
  app.add_option("--runtime", flags.runtime, "short folder for sockets and MPI's temporary files");
  app.add_option("--hang-seconds", hang, "kill ranks without progress for this long [120]");
  app.add_option("--orphan-minutes", orphan,
                 "stop when the coordinator is silent for this long [30]");
  app.add_option("--stop-seconds", stop, "how long a checkpoint before a stop may take [60]");
  app.add_option("--log-mib", log, "MiB kept of the end of each log file [64]");
  AddDaemonFlags(app, "tandem-worker", flags.metrics, flags.die_with_parent);
  parsed.help = ParseDaemonFlags(app, argc, argv, parsed.errors);
  if (!parsed.help.empty()) return parsed;
  ReadNumberFlag(slots, "--slots", {1, 4096}, flags.slots, parsed.errors);
  ReadNumberFlag(threads, "--threads-per-slot", {1, 1024}, flags.threads_per_slot, parsed.errors);
  ReadNumberFlag(hang, "--hang-seconds", {1, 86400, 1000}, flags.hang_ms, parsed.errors);
  ReadNumberFlag(orphan, "--orphan-minutes", {1, 10080, 60'000}, flags.orphan_ms, parsed.errors);
  ReadNumberFlag(stop, "--stop-seconds", {1, 86400, 1000}, flags.stop_ms, parsed.errors);
  ReadNumberFlag(log, "--log-mib", {1, 1 << 20, 1 << 20}, flags.log_bytes, parsed.errors);
  FillDefaults(flags, binary_folder);
  Check(flags, parsed.errors);
  return parsed;
}

}  // namespace tandem::agent
