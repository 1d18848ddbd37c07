#include "coordinator/flags.h"

#include <CLI/CLI.hpp>

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
  app.add_option("--state", flags.state, "folder of the database; one coordinator per folder");
  app.add_option("--listen", flags.listen, "gRPC address, loopback; port 0 chooses one")
      ->capture_default_str();
  app.add_option("--metrics", flags.metrics, "Prometheus address, loopback; port 0 chooses one")
      ->capture_default_str();
  app.add_flag("--die-with-parent", flags.die_with_parent, "end when the starting process ends");
  app.add_option("--lease-ms", lease, "a worker silent for this long is lost [10000]");
  app.add_option("--heartbeat-ms", heartbeat, "how often workers report [2000]");
  app.add_option("--retry-backoff-ms", backoff, "wait before the first charged retry");
  app.set_version_flag("--version", std::string("tandem-coordinator ") + TANDEM_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    parsed.help = app.help();
    return parsed;
  } catch (const CLI::CallForVersion&) {
    parsed.help = app.version() + "\n";
    return parsed;
  } catch (const CLI::ParseError& error) {
    parsed.errors.push_back(error.what());
  }
  ReadNumberFlag(lease, "--lease-ms", {1000, 3'600'000}, flags.lease_ms, parsed.errors);
  ReadNumberFlag(heartbeat, "--heartbeat-ms", {10, 600'000}, flags.heartbeat_ms, parsed.errors);
  ReadNumberFlag(backoff, "--retry-backoff-ms", {1, 600'000}, flags.retry_backoff_ms,
                 parsed.errors);
  Check(&flags, &parsed.errors);
  return parsed;
}

}  // namespace tandem
