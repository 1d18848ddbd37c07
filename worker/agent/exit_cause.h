// Exit cause: what the end of a gang means. Pure.
//
// The cause is one word of a closed set (proto/tandem/v1/fleet.proto, AttemptStatus); the
// coordinator decides by it whether the job is tried again. The detail is for people.
#pragma once

#include <string>

#include "worker/agent/children.h"

namespace tandem::agent {

struct GangEnd {
  ChildExit exit;           // mpirun's
  bool said_hello = false;  // did any rank reach the agent?
  std::string
      fatal_kind;  // of the first `fatal` message that tells more than "a collective was lost"
  std::string fatal_text;
  std::string last_lines;  // of stderr
};

struct EndCause {
  std::string cause;
  std::string detail;
};

// Not for exit code 0.
EndCause CauseOf(const GangEnd& end);

// The last lines of a file, at most max_bytes, without those of mpirun's decoration; "" when there
// is none.
std::string LastLines(const std::string& path, int64_t max_bytes = 1200);

}  // namespace tandem::agent
