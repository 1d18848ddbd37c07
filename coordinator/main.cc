// tandem-coordinator: accepts jobs, keeps them, places them on workers.
//
// Wiring only: flags -> folder lock -> store -> metrics -> service -> scrape endpoint ->
// endpoints.json -> wait for a signal.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "base/file_lock.h"
#include "base/files.h"
#include "base/log.h"
#include "base/parent_process.h"
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

// SQLite's own lock does not name who has it.
Status LockFolder(const std::string& state, FileLock& lock) {
  std::string owner;
  const Status taken = lock.Take(JoinPath(state, "lock"), &owner);
  if (owner.empty()) return taken;
  return FailedPrecondition("state folder " + state + " is in use by process " + owner +
                            "; stop that coordinator, or use another --state");
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
  FileLock lock;
  TANDEM_RETURN_IF_ERROR(LockFolder(flags.state, lock));
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
