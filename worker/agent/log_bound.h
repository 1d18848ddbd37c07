// Log bound: an attempt's log files do not fill the disk, however long it runs.
//
// Each file's end is kept; its beginning is given back to the file system as a hole (fallocate(2)).
// So no writer has to be told, nothing is renamed under its descriptor, and an offset means the
// same to whoever follows the file (log_reader.h skips the hole). Blocking; no state, any thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace tandem::agent {

// Of every *.out and *.err of the folder at least the last `kept_bytes` stay, and at most a quarter
// more. kUnimplemented where the file system has no holes: nothing is lost, nothing is bounded.
Status BoundLogs(const std::string& attempt_folder, int64_t kept_bytes);

// "rank-0.err": a file that BoundLogs and the log reader take for a log.
bool IsLogName(const std::string& name);

}  // namespace tandem::agent
