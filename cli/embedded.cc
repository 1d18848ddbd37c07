#include "cli/embedded.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/files.h"

namespace tandem::cli {
namespace {

constexpr int64_t kStartPatienceMs = 30'000;
constexpr int64_t kStopPatienceMs = 10'000;
constexpr auto kLook = std::chrono::milliseconds(50);
constexpr int kLogLines = 15;

bool WaitForEnd(Child& child, int64_t patience_ms) {
  const int64_t deadline = Clock::System().MonotonicMs() + patience_ms;
  while (child.IsRunning()) {
    if (Clock::System().MonotonicMs() > deadline) return false;
    std::this_thread::sleep_for(kLook);
  }
  return true;
}

void StopChild(Child* child) {
  if (child == nullptr || !child->IsRunning()) return;
  child->Signal(SIGTERM);
  if (WaitForEnd(*child, kStopPatienceMs)) return;
  child->Signal(SIGKILL);
  WaitForEnd(*child, kStopPatienceMs);
}

// The gRPC address that process `pid` has written, or "".
std::string ServedBy(const std::string& state, pid_t pid) {
  const auto text = ReadFile(state + "/endpoints.json", 1 << 16);
  if (!text.ok()) return "";
  const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.value("pid", int64_t{0}) != pid) return "";
  return json.value("grpc", std::string());
}

}  // namespace

WorkLock::~WorkLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

Status WorkLock::Take(const std::string& work) {
  const std::string path = work + "/run.lock";
  descriptor_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) return ErrnoStatus("cannot open " + path);
  if (flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t size = read(descriptor_, holder, sizeof holder - 1);
    const std::string pid = size > 0 ? std::string(holder, static_cast<size_t>(size)) : "unknown";
    return FailedPrecondition(
        "another `tandem run` (pid " + pid + ") works in " + work +
        "; wait for it, stop it with Ctrl-C, or choose another --work folder");
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(descriptor_, 0) != 0 || pwrite(descriptor_, pid.data(), pid.size(), 0) < 0) {
    return ErrnoStatus("cannot write " + path);
  }
  return Status::Ok();
}

EmbeddedCluster::EmbeddedCluster(std::string work, std::string bin)
    : work_(std::move(work)), bin_(std::move(bin)) {}

Status EmbeddedCluster::StartCoordinator(const std::atomic<bool>& stop) {
  TANDEM_RETURN_IF_ERROR(MakeFolders(State()));
  const auto command = [&](const std::string& listen) {
    return std::vector<std::string>{bin_ + "/tandem-coordinator",
                                    "--state",
                                    State(),
                                    "--listen",
                                    listen,
                                    "--metrics",
                                    "127.0.0.1:0",
                                    "--die-with-parent"};
  };
  coordinator_ =
      std::make_unique<Child>("the coordinator", command("127.0.0.1:0"), State() + "/log");
  TANDEM_RETURN_IF_ERROR(coordinator_->Start());
  const int64_t deadline = Clock::System().MonotonicMs() + kStartPatienceMs;
  while (!stop) {
    TANDEM_RETURN_IF_ERROR(coordinator_->KeepRunning());
    server_ = ServedBy(State(), coordinator_->pid());
    if (!server_.empty()) break;
    if (Clock::System().MonotonicMs() > deadline) {
      return {Code::kUnavailable, "the coordinator did not start within 30 s; the last lines of " +
                                      State() + "/log:\n" + LastLines(State() + "/log", kLogLines)};
    }
    std::this_thread::sleep_for(kLook);
  }
  // A restarted coordinator is found where it was.
  if (!server_.empty()) coordinator_->set_command(command(server_));
  return Status::Ok();
}

Status EmbeddedCluster::StartWorker(int64_t slots, int64_t threads_per_slot) {
  const std::string folder = work_ + "/workers/local";
  TANDEM_RETURN_IF_ERROR(MakeFolders(folder));
  worker_ = std::make_unique<Child>(
      "the worker",
      std::vector<std::string>{bin_ + "/tandem-worker", "--coordinator", server_, "--work", work_,
                               "--name", "local", "--slots", std::to_string(slots),
                               "--threads-per-slot", std::to_string(threads_per_slot), "--metrics",
                               "127.0.0.1:0", "--die-with-parent"},
      folder + "/log");
  return worker_->Start();
}

Status EmbeddedCluster::KeepRunning() {
  if (coordinator_) TANDEM_RETURN_IF_ERROR(coordinator_->KeepRunning());
  if (worker_ && !draining_) TANDEM_RETURN_IF_ERROR(worker_->KeepRunning());
  return Status::Ok();
}

void EmbeddedCluster::DrainWorker() {
  draining_ = true;
  if (IsWorkerRunning()) worker_->Signal(SIGTERM);
}

void EmbeddedCluster::Stop() {
  StopChild(worker_.get());
  StopChild(coordinator_.get());
}

int64_t UsableCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

Result<std::string> OwnFolder() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  if (size <= 0 || size == sizeof path) return ErrnoStatus("cannot read /proc/self/exe");
  return std::filesystem::path(std::string(path, static_cast<size_t>(size))).parent_path().string();
}

std::string FailedLog(const std::string& work, const std::string& uid) {
  const std::string attempts = work + "/jobs/" + uid + "/attempts";
  auto epochs = ListFolder(attempts);
  if (!epochs.ok() || epochs->empty()) return "";
  const auto number = [](const std::string& name) { return std::atoll(name.c_str()); };
  const std::string newest = *std::ranges::max_element(*epochs, {}, number);
  for (const char* file : {"rank-0.err", "mpirun.err", "prepare.err"}) {
    const std::string path = attempts + "/" + newest + "/" + file;
    if (const std::string lines = LastLines(path, kLogLines); !lines.empty())
      return path + ":\n" + lines;
  }
  return "";
}

}  // namespace tandem::cli
