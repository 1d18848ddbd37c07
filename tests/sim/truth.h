// Truth: what really happened in a world, seen by nobody in it; what the coordinator believes is
// held against it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "coordinator/core/state_hash.h"
#include "coordinator/core/types.h"

namespace tandem::sim {

// Bugs planted in the simulated coordinator to show that the checks can fail.
enum class Sabotage {
  kNone,
  kAcceptStaleEnds,      // an old epoch's end is taken for the present one's
  kCommandBeforeCommit,  // commands leave before the rows are written
  kForgetRequests,       // request records are not persisted
  kFreeFencedSlots,      // slots of fenced attempts are given away before they are known to be dead
};

struct Truth {
  std::map<core::AttemptRef, core::Cause> ended;  // as the process groups ended
  std::vector<std::string> broken;                // empty in a good world
  core::Hasher trace;                             // of everything that left the coordinator
  int64_t steps = 0;
  int64_t coordinator_crashes = 0;
  int64_t agent_crashes = 0;
  int64_t successes = 0;
  int64_t reclaimed = 0;  // attempts whose end counted although they had been given up
};

}  // namespace tandem::sim
