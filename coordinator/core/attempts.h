// Attempts: how one begins, is asked to stop, and ends. Shared by the handlers, since many events
// end an attempt.
//
// All keep three things in step: the job's attempt, the worker's occupant, and the command that
// tells the agent.
#pragma once

#include <string>
#include <vector>

#include "coordinator/core/turn.h"

namespace tandem::core {

// Is the process group of an ended attempt known to be gone?
enum class Death { kConfirmed, kUnknown };

// A new epoch of a PENDING job on a worker with room for it.
void BeginAttempt(Turn& turn, Job& job, Worker& worker);
// The command that a live attempt's agent must have: for a first launch and for one that may have
// been lost.
void SendLaunch(Turn& turn, const Job& job, const Worker& worker);
// The attempt is DRAINING from now on, if it was not; the agent is told (again).
void StopLiveAttempt(Turn& turn, Job& job, const Worker& worker, StopKind kind,
                     const std::string& reason);
// Ends the job's live attempt and decides what becomes of the job (requeue.h). With kUnknown its
// slots stay taken until the agent is heard.
void EndLiveAttempt(Turn& turn, Job& job, Cause cause, const std::string& detail, Death death);

// A message of an attempt that is not its job's: it changes counters only, and the answer is to
// kill what sent it.
void AnswerStale(Turn& turn, const Worker& worker, const AttemptRef& attempt);
// The same for one that is known to live: its slots are taken until it is gone.
void FenceStale(Turn& turn, Worker& worker, const AttemptRef& attempt);
// The attempts of a worker, owned ones only.
std::vector<AttemptRef> OwnedAttempts(const Worker& worker);
// The worker is gone: its attempts end with NODE_LOST, its slots are unusable until it registers
// again.
void LoseWorker(Turn& turn, Worker& worker, const std::string& detail);

}  // namespace tandem::core
