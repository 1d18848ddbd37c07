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

void NoteProgress(Job& job, int64_t stage, int64_t step) {
  if (std::tie(stage, step) <= std::tie(job.committed_stage, job.committed_step)) return;
  job.committed_stage = stage;
  job.committed_step = step;
  job.charged_ends = 0;
  job.ends_in_a_row = 0;
}

}  // namespace

void On(Turn& turn, const CheckpointCommitted& event) {
  Job* job = Sent(turn, turn.Sender(event.worker, event.connection), event.attempt);
  if (job == nullptr || job->checkpoint == event.directory) return;
  job->checkpoint = event.directory;
  NoteProgress(*job, event.stage_index, event.step);
  turn.Record(*job, "checkpoint",
              "checkpoint at step " + std::to_string(event.step) + " of stage " +
                  std::to_string(event.stage_index + 1));
}

void On(Turn& turn, const StageCommitted& event) {
  Job* job = Sent(turn, turn.Sender(event.worker, event.connection), event.attempt);
  if (job == nullptr) return;
  // Further than any step of the stage, not as far as the first step of the next.
  NoteProgress(*job, event.stage_index + 1, -1);
  turn.Record(*job, "stage_committed", "stage " + event.stage + " is done");
}

}  // namespace tandem::core
