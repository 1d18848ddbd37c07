#include "cli/embedded.h"

#include <sched.h>
#include <signal.h>
#include <sys/statvfs.h>
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
constexpr uint64_t kLeastRoomBytes = 256 * 1024;
constexpr int64_t kDrainPatienceMs = 90'000;  // above the worker's own 60 s
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

// More than the last few pages, in which nobody gets anything done.
bool HasRoom(const std::string& folder) {
  struct statvfs disk {};
  if (statvfs(folder.c_str(), &disk) != 0 || disk.f_blocks == 0) return true;  // it does not say
  const auto free_blocks = geteuid() == 0 ? disk.f_bfree : disk.f_bavail;
  return free_blocks * disk.f_frsize >= kLeastRoomBytes;
}

// Cores that this process may use.
int64_t UsableCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

}  // namespace

EmbeddedCluster::EmbeddedCluster(std::string work, std::string bin, int64_t full_disk_seconds)
    : work_(std::move(work)), bin_(std::move(bin)), full_disk_seconds_(full_disk_seconds) {}

EmbeddedCluster::~EmbeddedCluster() {
  StopChild(worker_.get());
  StopChild(coordinator_.get());
}

Result<std::unique_ptr<EmbeddedCluster>> EmbeddedCluster::Open(const std::string& work,
                                                               int64_t full_disk_seconds) {
  const std::string absolute = AbsolutePath(work);
  const Status made = MakeFolders(absolute);
  if (!made.ok()) return made.WithContext("--work " + work);
  TANDEM_ASSIGN_OR_RETURN(std::string bin, OwnFolder());
  std::unique_ptr<EmbeddedCluster> cluster(
      new EmbeddedCluster(absolute, std::move(bin), full_disk_seconds));
  std::string owner;
  const Status taken = cluster->lock_.Take(absolute + "/run.lock", &owner);
  if (taken.ok()) return cluster;
  if (owner.empty()) return taken;
  return FailedPrecondition("another `tandem run` (pid " + owner + ") works in " + absolute +
                            "; wait for it, stop it with Ctrl-C, or choose another --work folder");
}

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
  if (IsWorkerRunning()) return Status::Ok();
  if (threads_per_slot == 0) threads_per_slot = std::max<int64_t>(1, UsableCores() / slots);
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

// Neither process can say so by itself: the coordinator's store takes no writes, and a log has no
// room for a line. Ranks train on meanwhile.
Status EmbeddedCluster::CheckRoom(int64_t now_ms,
                                  const std::function<void(const std::string&)>& note) {
  if (HasRoom(work_)) {
    full_since_ms_ = 0;
    return Status::Ok();
  }
  const std::string what = "the disk that holds " + work_ + " is full; make room";
  if (full_since_ms_ == 0) {
    full_since_ms_ = now_ms;
    note(what + ", or this ends in " + std::to_string(full_disk_seconds_) + " s");
  }
  if (now_ms - full_since_ms_ < full_disk_seconds_ * 1000) return Status::Ok();
  return ResourceExhausted(what + ", then run the same command again");
}

Result<bool> EmbeddedCluster::Tend(bool stop_asked,
                                   const std::function<void(const std::string&)>& note) {
  const int64_t now = Clock::System().MonotonicMs();
  TANDEM_RETURN_IF_ERROR(CheckRoom(now, note));
  if (coordinator_) TANDEM_RETURN_IF_ERROR(coordinator_->KeepRunning());
  if (!stop_asked) {
    if (worker_) TANDEM_RETURN_IF_ERROR(worker_->KeepRunning());
    return true;
  }
  if (drain_deadline_ms_ == 0) {
    note("stopping: the worker saves a checkpoint first (Ctrl-C again: at once)");
    if (IsWorkerRunning()) worker_->Signal(SIGTERM);
    drain_deadline_ms_ = now + kDrainPatienceMs;
  }
  return IsWorkerRunning() && now <= drain_deadline_ms_;
}

Result<std::string> OwnFolder() {
  char path[4096];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path);
  if (size <= 0 || size == sizeof path) return ErrnoStatus("cannot read /proc/self/exe");
  return std::filesystem::path(std::string(path, static_cast<size_t>(size))).parent_path().string();
}

std::string LogOfFailure(const std::string& work, const std::string& uid) {
  const std::string attempts = work + "/jobs/" + uid + "/attempts";
  auto epochs = ListFolder(attempts);
  if (!epochs.ok() || epochs->empty()) return "";
  const auto number = [](const std::string& name) { return std::atoll(name.c_str()); };
  const std::string newest = *std::ranges::max_element(*epochs, {}, number);
  const std::string folder = attempts + "/" + newest;
  for (const char* file : {"rank-0.err", "mpirun.err", "prepare.err"}) {
    if (!LastLines(JoinPath(folder, file), 1).empty()) return JoinPath(folder, file);
  }
  return folder;
}

}  // namespace tandem::cli
