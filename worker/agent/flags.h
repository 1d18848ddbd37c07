// Flags: what tandem-worker is started with. Read once, checked as a whole, then const.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/gpus.h"

namespace tandem::agent {

struct AgentFlags {
  std::string coordinator;              // HOST:PORT
  std::string work;                     // absolute; shared by all workers of a job
  std::string name;                     // unique in the cluster; default: the host's
  int64_t slots = 1;                    // ranks that may run at once
  std::string gpus = "auto";            // auto, none, or which: see GpusOf
  int64_t threads_per_slot = 0;         // default: cores / slots, at least 1
  std::string metrics = "127.0.0.1:0";  // Prometheus; port 0 = choose
  std::string python;                   // interpreter for preparation and report
  std::string python_path;              // folder of the packages tandem and hybrid_linear
  std::string rank;                     // tandem-rank
  std::string runtime;                  // short folder for sockets and MPI's temporary files
  bool die_with_parent = false;
  int64_t hang_ms = 120'000;        // ranks without progress for this long are killed
  int64_t orphan_ms = 30 * 60'000;  // attempts of a coordinator silent for this long are stopped
  int64_t stop_ms = 60'000;         // how long a checkpoint before a stop may take
  int64_t log_bytes = 64 << 20;     // kept of the end of each log file of a running attempt
};

struct ParsedFlags {
  AgentFlags flags;
  std::vector<std::string> errors;  // all of them, each a sentence
  std::string help;                 // set: print it and exit 0 (also for --version)
};

// The GPUs that the slots are given, one each: by --gpus, else those that this process may use.
std::vector<GpuId> GpusOf(const AgentFlags& flags);

// This machine's.
std::string HostName();

// Looks at the environment (TANDEM_PYTHON, TANDEM_PYTHONPATH) and at what lies beside
// `binary_folder`.
ParsedFlags ParseFlags(int argc, const char* const* argv, const std::string& binary_folder);

}  // namespace tandem::agent
