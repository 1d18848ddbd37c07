// CheckpointCommitted, StageCommitted: an attempt has reached a point from which the job can go on.
//
// Only the live epoch is listened to: what an older one commits lies in its own folder and enters
// no lineage. A commit further than all before is progress, and wipes out what failures counted.
#include <string>
#include <tuple>

#include "coordinator/core/attempts.h"
#include "coordinator/core/handlers.h"

namespace tandem::core {
namespace {

// The job of a message, or null if it came from the wrong epoch.
Job* Sent(Turn& turn, Worker* worker, const AttemptRef& attempt) {
  if (worker == nullptr) return nullptr;
  Job* job = turn.FindLive(attempt, *worker);
  if (job == nullptr) AnswerStale(turn, *worker, attempt);
  return job;
}

// False if this epoch has said so, or more, before.
bool NoteCommit(Job& job, int64_t stage, int64_t step) {
  if (std::tie(stage, step) <= std::tie(job.epoch_stage, job.epoch_step)) return false;
  job.epoch_stage = stage;
  job.epoch_step = step;
  if (std::tie(stage, step) > std::tie(job.committed_stage, job.committed_step)) {
    job.committed_stage = stage;
    job.committed_step = step;
    job.charged_ends = 0;
    job.ends_in_a_row = 0;
  }
  return true;
}

}  // namespace

void On(Turn& turn, const CheckpointCommitted& event) {
  Job* job = Sent(turn, turn.Sender(event.worker, event.connection), event.attempt);
  if (job == nullptr || !NoteCommit(*job, event.stage_index, event.step)) return;
  job->checkpoint = event.directory;
  turn.Record(*job, "checkpoint",
              "checkpoint at step " + std::to_string(event.step) + " of stage " +
                  std::to_string(event.stage_index + 1));
}

void On(Turn& turn, const StageCommitted& event) {
  Job* job = Sent(turn, turn.Sender(event.worker, event.connection), event.attempt);
  // Further than any step of the stage, not as far as the first step of the next.
  if (job == nullptr || !NoteCommit(*job, event.stage_index + 1, -1)) return;
  turn.Record(*job, "stage_committed", "stage " + event.stage + " is done");
}

}  // namespace tandem::core
