// Log reader: parts of an attempt's log files and of a job's report, for people who ask through the
// coordinator.
//
// Only files with known endings of the attempt's own folder are given out. Blocking; no state, any
// thread; what is wrong is told in LogChunk.error.
#pragma once

#include <string>

#include "tandem/v1/fleet.pb.h"

namespace tandem::agent {

inline constexpr int64_t kMaxChunkBytes = 1 << 20;

// epoch 0: the newest attempt here. No file and no report_format: `files` alone. tail_bytes counts
// only at offset 0. end_of_file: the chunk reaches the file's present end; a file that grows has
// more at next_offset later. Where the beginning is not kept any more (log_bound.h), a line says
// so.
v1::LogChunk ReadChunk(const std::string& jobs_folder, const v1::ReadLogs& request);

}  // namespace tandem::agent
