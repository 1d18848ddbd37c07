// Flags: what tandem-coordinator is started with. Read once, checked as a whole, then const.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

struct CoordinatorFlags {
  std::string state;                       // folder of the database; made if absent
  std::string listen = "127.0.0.1:7600";   // gRPC; port 0 = choose
  std::string metrics = "127.0.0.1:7601";  // Prometheus; port 0 = choose
  bool die_with_parent = false;
  int64_t lease_ms = 10'000;     // a worker silent for this long is lost; several ticks long
  int64_t heartbeat_ms = 2'000;  // how often agents beat
  int64_t retry_backoff_ms = 0;  // first wait after a failed attempt; 0: the core's default
};

struct ParsedFlags {
  CoordinatorFlags flags;
  std::vector<std::string> errors;  // all of them, each a sentence
  std::string help;                 // set: print it and exit 0 (also for --version)
};

ParsedFlags ParseFlags(int argc, const char* const* argv);

}  // namespace tandem
