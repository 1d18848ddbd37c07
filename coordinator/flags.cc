#include "coordinator/flags.h"

#include <CLI/CLI.hpp>
#include <charconv>

namespace tandem {
namespace {

// Numbers arrive as text, so that one run reports every bad flag, not only the first.
void ReadNumber(const std::string& text, const char* flag, int64_t low, int64_t high, int64_t* out,
                std::vector<std::string>* errors) {
  if (text.empty()) return;
  int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  if (whole && value >= low && value <= high) {
    *out = value;
    return;
  }
  errors->push_back(std::string(flag) + " is '" + text + "'; must be a whole number in [" +
                    std::to_string(low) + ", " + std::to_string(high) + "]");
}

void CheckAddress(const std::string& address, const char* flag, std::vector<std::string>* errors) {
  std::string host;
  int port = 0;
  if (!SplitAddress(address, &host, &port)) {
    errors->push_back(std::string(flag) + " is '" + address +
                      "'; must be HOST:PORT with a port in [0, 65535], as in 127.0.0.1:7600");
  } else if (!IsLoopback(host)) {
    errors->push_back(std::string(flag) + " is '" + address +
                      "'; only loopback addresses are served, because there is no authentication "
                      "yet: use 127.0.0.1 and reach it through an SSH tunnel");
  }
}

void Check(CoordinatorFlags* flags, std::vector<std::string>* errors) {
  if (flags->state.empty()) {
    errors->push_back("--state is missing; name the folder that holds the coordinator's database");
  }
  CheckAddress(flags->listen, "--listen", errors);
  CheckAddress(flags->metrics, "--metrics", errors);
  if (flags->heartbeat_ms * 2 > flags->lease_ms) {
    errors->push_back("--heartbeat-ms is " + std::to_string(flags->heartbeat_ms) +
                      "; must be at most half of --lease-ms, which is " +
                      std::to_string(flags->lease_ms));
  }
}

}  // namespace

bool SplitAddress(const std::string& address, std::string* host, int* port) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  const char* first = address.data() + colon + 1;
  const char* last = address.data() + address.size();
  const auto parsed = std::from_chars(first, last, *port);
  if (parsed.ec != std::errc() || parsed.ptr != last || *port < 0 || *port > 65535) return false;
  *host = address.substr(0, colon);
  return true;
}

bool IsLoopback(const std::string& host) {
  // 127.evil.example is a name, not an address.
  const bool numeric = host.find_first_not_of("0123456789.") == std::string::npos;
  return host == "localhost" || host == "[::1]" || (numeric && host.rfind("127.", 0) == 0);
}

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
  ReadNumber(lease, "--lease-ms", 1000, 3'600'000, &flags.lease_ms, &parsed.errors);
  ReadNumber(heartbeat, "--heartbeat-ms", 10, 600'000, &flags.heartbeat_ms, &parsed.errors);
  ReadNumber(backoff, "--retry-backoff-ms", 1, 600'000, &flags.retry_backoff_ms, &parsed.errors);
  Check(&flags, &parsed.errors);
  return parsed;
}

}  // namespace tandem
