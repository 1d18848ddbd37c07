// tandem-coordinator: accepts jobs, keeps them, places them on workers.
//
// Wiring only: flags -> folder lock -> store -> metrics -> service -> scrape endpoint ->
// endpoints.json -> wait for a signal.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "base/files.h"
#include "base/log.h"
#include "coordinator/flags.h"
#include "coordinator/loop/scrape_endpoint.h"
#include "coordinator/service/service.h"
#include "coordinator/store/sqlite_store.h"

namespace tandem {
namespace {

constexpr int kExitUsage = 2;
constexpr int kExitFailed = 1;

// Threads inherit the mask, so only WaitForSignal sees these.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

// The kernel kills us when the parent ends; if it ended before we asked, we would never know, hence
// the second look.
bool DieWithParent() {
  const pid_t parent = getppid();
  return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

// Held until the process ends. SQLite's own lock does not name who has it.
Status LockFolder(const std::string& state) {
  const std::string path = JoinPath(state, "lock");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(path);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const Result<std::string> owner = ReadFile(path, 64);
    return FailedPrecondition("state folder " + state + " is in use by process " +
                              (owner.ok() ? *owner : "?") +
                              "; stop that coordinator, or use another --state");
  }
  const std::string pid = std::to_string(getpid());
  const bool written = ftruncate(fd, 0) == 0 &&
                       write(fd, pid.data(), pid.size()) == static_cast<ssize_t>(pid.size());
  return written ? Status::Ok() : ErrnoStatus(path);
}

core::Limits LimitsOf(const CoordinatorFlags& flags) {
  core::Limits limits;
  limits.lease_ms = flags.lease_ms;
  limits.heartbeat_ms = flags.heartbeat_ms;
  if (flags.retry_backoff_ms > 0) limits.backoff_first_ms = flags.retry_backoff_ms;
  return limits;
}

Status WriteEndpoints(const std::string& state, const std::string& grpc,
                      const std::string& metrics) {
  const nlohmann::json endpoints = {{"grpc", grpc}, {"metrics", metrics}, {"pid", getpid()}};
  return WriteFileDurably(JoinPath(state, "endpoints.json"), endpoints.dump() + "\n");
}

Status Serve(const CoordinatorFlags& flags, const sigset_t& signals) {
  TANDEM_RETURN_IF_ERROR(MakeFolders(flags.state));
  TANDEM_RETURN_IF_ERROR(LockFolder(flags.state));
  TANDEM_ASSIGN_OR_RETURN(const auto store,
                          store::OpenSqliteStore(JoinPath(flags.state, "tandem.db")));
  TANDEM_ASSIGN_OR_RETURN(auto tokens, service::PageTokens::FromStateFolder(flags.state));
  Metrics metrics(TANDEM_VERSION);
  service::Service service(*store, metrics, Clock::System(), std::move(tokens));
  TANDEM_RETURN_IF_ERROR(service.Start({flags.listen, LimitsOf(flags)}));
  TANDEM_ASSIGN_OR_RETURN(
      const auto scrape,
      ScrapeEndpoint::Listen(flags.metrics, metrics, [&service] { service.ShowGauges(); }));
  TANDEM_RETURN_IF_ERROR(WriteEndpoints(flags.state, service.address(), scrape->address()));
  Log(LogLevel::kInfo, "coordinator_serving",
      {{"grpc", service.address()},
       {"metrics", scrape->address()},
       {"state", flags.state},
       {"version", TANDEM_VERSION}});
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  Log(LogLevel::kInfo, "coordinator_stopping", {{"signal", signal_number}});
  return Status::Ok();
}

int Main(int argc, char** argv) {
  const ParsedFlags parsed = ParseFlags(argc, argv);
  if (!parsed.help.empty()) {
    std::fputs(parsed.help.c_str(), stdout);
    return 0;
  }
  for (const std::string& error : parsed.errors) {
    std::fprintf(stderr, "tandem-coordinator: %s\n", error.c_str());
  }
  if (!parsed.errors.empty()) return kExitUsage;
  const sigset_t signals = BlockStopSignals();
  if (parsed.flags.die_with_parent && !DieWithParent()) return kExitFailed;
  const Status status = Serve(parsed.flags, signals);
  if (status.ok()) return 0;
  std::fprintf(stderr, "tandem-coordinator: %s\n", status.message().c_str());
  return kExitFailed;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  return tandem::Main(argc, argv);
}
