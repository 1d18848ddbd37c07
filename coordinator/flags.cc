#include "coordinator/flags.h"

#include "base/daemon_flags.h"
#include "base/flag_text.h"

namespace tandem {
namespace {

void Check(CoordinatorFlags* flags, std::vector<std::string>* errors) {
  if (flags->state.empty()) {
    errors->push_back("--state is missing; name the folder that holds the coordinator's database");
  }
  CheckServedAddress(flags->listen, "--listen", *errors);
  CheckServedAddress(flags->metrics, "--metrics", *errors);
  if (flags->heartbeat_ms * 2 > flags->lease_ms) {
    errors->push_back("--heartbeat-ms is " + std::to_string(flags->heartbeat_ms) +
                      "; must be at most half of --lease-ms, which is " +
                      std::to_string(flags->lease_ms));
  }
}

}  // namespace

ParsedFlags ParseFlags(int argc, const char* const* argv) {
  ParsedFlags parsed;
  CoordinatorFlags& flags = parsed.flags;
  std::string lease;
  std::string heartbeat;
  std::string backoff;
  CLI::App app("tandem-coordinator: accepts jobs, keeps them, places them on workers.");
  app.add_option("--state", flags.state, "folder of the database; one coordinator per folder")
      ->type_name("DIR");
  app.add_option("--listen", flags.listen, "gRPC address, loopback; port 0 chooses one")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--lease-ms", lease, "a worker silent for this long is lost [10000]")
      ->type_name("N");
  app.add_option("--heartbeat-ms", heartbeat, "how often workers report [2000]")->type_name("N");
  app.add_option("--retry-backoff-ms", backoff, "wait before the first charged retry [500]")
      ->type_name("N");
  AddDaemonFlags(app, "tandem-coordinator", flags.metrics, flags.die_with_parent);
  parsed.help = ParseDaemonFlags(app, argc, argv, parsed.errors);
  if (!parsed.help.empty()) return parsed;
  ReadNumberFlag(lease, "--lease-ms", {1000, 3'600'000}, flags.lease_ms, parsed.errors);
  ReadNumberFlag(heartbeat, "--heartbeat-ms", {10, 600'000}, flags.heartbeat_ms, parsed.errors);
  ReadNumberFlag(backoff, "--retry-backoff-ms", {1, 600'000}, flags.retry_backoff_ms,
                 parsed.errors);
  Check(&flags, &parsed.errors);
  return parsed;
}

}  // namespace tandem
