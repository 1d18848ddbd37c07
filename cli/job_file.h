// The job file on the command line: read, checked, and its faults told as "job.yaml:7: ...".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "spec/spec.h"

namespace tandem::cli {

struct JobFile {
  std::string path;  // as given; "-" is stdin
  ParsedSpec parsed;
};

// Prints every fault to stderr and gives nothing, or a valid spec with absolute paths.
std::optional<JobFile> ReadJobFile(const std::string& path);

// "job.yaml:7: message" per violation; without a line "job.yaml: message".
std::string FaultLines(const std::string& path, const std::vector<Violation>& violations);

// The faults that a coordinator found (one per line of its message), with the lines of the file
// where they can be found.
std::vector<Violation> FaultsOfMessage(const std::string& message, const ParsedSpec& parsed);

// The files that the spec names, looked at on this machine.
std::vector<Violation> FaultsOfPaths(const ParsedSpec& parsed);

// The same, and what this machine lacks for a job that is to run here: in a cluster such a job
// waits for a machine with GPUs, here none would come.
std::vector<Violation> FaultsHere(const ParsedSpec& parsed);

// Of a job that may use so many GPUs; visible for tests.
std::vector<Violation> FaultsOfGpus(const ParsedSpec& parsed, int64_t gpus);

}  // namespace tandem::cli
