// Marked processes: everything that an attempt has started, however it forked or who adopted it.
//
// Each child of an attempt carries TANDEM_ATTEMPT in its environment, and whatever it starts
// inherits it; /proc shows the environment a process was started with. So the mark finds ranks
// whose mpirun is dead, also after the agent's own restart, and unlike a recorded pid it cannot
// come to mean another process. A zombie has no environment: it is not found. Reads /proc, some
// milliseconds; no state, any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::agent {

// "TANDEM_ATTEMPT=<worker folder>|<uid>|<epoch>|"
std::string AttemptMark(const std::string& worker_folder, const std::string& job_uid,
                        int64_t epoch);
// The beginning of every mark of this worker.
std::string WorkerMark(const std::string& worker_folder);

// Living processes of this user with an environment entry that begins with `mark`; never ourselves.
std::vector<pid_t> FindMarked(const std::string& mark);
// SIGKILL to each; how many there were. They may live for a moment longer: ask again until it is 0.
size_t KillMarked(const std::string& mark);

}  // namespace tandem::agent
