// Invariants: what must be true after every step, whatever happened. Numbers as in ARCHITECTURE.md
// ("States").
//
// Checked by every test and simulated world; the cheap ones (legal transitions, one live attempt)
// also abort in production where they would be broken (turn.cc, attempts.cc). Pure; O(jobs +
// workers).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "coordinator/core/effect.h"
#include "coordinator/core/state.h"

namespace tandem::core {

// Of one state: I1 one live attempt per job, I2 slots, I3 whole gangs, I9 answered requests, I14
// bounded cancels, and that every index agrees with what it indexes. One sentence for each
// violation; empty: all hold.
std::vector<std::string> CheckInvariants(const State& state, const Now& now);

// Of a history: I4 stale epochs change nothing, I6 nothing is launched that is not in the same
// step's rows or earlier ones, I8 terminal states stay, I10 one change, one event, the next
// revision, the same transaction. Feed it every step.
class HistoryChecker {
 public:
  // The state as loaded; forgets what was before (a crash may lose steps that were not committed).
  void Restart(const State& state);
  std::vector<std::string> Check(const State& after, const Effects& effects);

 private:
  struct Seen {
    JobState state = JobState::kPending;
    Epoch epoch = 0;
    Revision revision = 0;
  };
  void CheckEvents(const State& after, const Effects& effects, std::vector<std::string>* broken);
  void CheckJobs(const State& after, const Effects& effects, std::vector<std::string>* broken);

  Revision revision_ = 0;
  std::map<JobUid, Seen> seen_;
};

}  // namespace tandem::core
