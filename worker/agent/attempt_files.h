// Attempt files: what the children of an attempt write, read back. Pure, or blocking reads of small
// files; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "tandem/v1/job.pb.h"

namespace tandem::agent {

// One line of `python -m tandem.prepare`.
struct PrepareLine {
  int64_t documents = 0;
  std::string tokens_folder;  // of the result
  std::string error;          // "data.train: what is wrong"
};
// Lines that are not JSON objects say nothing.
PrepareLine ParsePrepareLine(const std::string& line);

// report.json as the message that goes to users; null and unknown fields are left out. kNotFound,
// or kDataLoss when it does not parse or has no verdict.
Result<v1::ComponentReport> ReadComponentReport(const std::string& path);

// The last lines that a rank wrote to stderr before it failed; mpirun's where no rank wrote any.
std::string LastErrorLines(const std::string& attempt_folder);

// A member of a JSON object in text; "" or 0 where it is missing or of another type.
std::string TextOf(const std::string& json, const std::string& key);
int64_t IntegerOf(const std::string& json, const std::string& key);

}  // namespace tandem::agent
