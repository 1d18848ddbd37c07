// Pipeline: an attempt from the plan's first open stage to the exported model.
//
// Training stages run in order, from the cursor of the checkpoint resumed from; evaluate and export
// follow. Control requests and time-based checkpoints are agreed upon between steps, so that all
// ranks act at the same step. Training thread only; leaves by exceptions (guard.h).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/comm/collective.h"
#include "worker/evaluate/peak_memory.h"
#include "worker/plan/plan.h"
#include "worker/rank/checkpoint_keeper.h"
#include "worker/rank/closing_stages.h"
#include "worker/rank/early_stop.h"
#include "worker/rank/event_channel.h"
#include "worker/rank/job_inputs.h"
#include "worker/rank/metrics_log.h"
#include "worker/rank/progress.h"
#include "worker/rank/stage_cache.h"
#include "worker/rank/tensorboard_log.h"
#include "worker/train/stage.h"

namespace tandem {

class Pipeline {
 public:
  // Loads model, tokens and, when the plan resumes, the checkpoint.
  Pipeline(const Plan& plan, Collective& collective, EventChannel& channel, Clock& clock);
  // kDone or kStopped.
  RankExit Run();

 private:
  void Resume();
  void RunClosingStages();
  void CommitClosing(const char* kind, int64_t stage_index, const ClosingResult& result);
  // False: stopped on request.
  bool RunStage(int64_t stage_index, int64_t first_step);
  // True: another job had done it; `result`, the stage's live tensors (ResultOf), are its.
  bool ReuseStage(int64_t stage_index, const NamedTensors& result);
  std::unique_ptr<EarlyStop> MakeEarlyStop(const StagePlan& stage);
  // Steps until the stage's end. False: stopped on request.
  bool TakeSteps(int64_t stage_index, int64_t first_step, TrainingStage& stage, EarlyStop* stop);
  void CacheStage(int64_t stage_index, const NamedTensors& result);
  void ReportStep(int64_t stage_index, int64_t step, const StepReport& report, double seconds);
  // metrics.jsonl and TensorBoard. Rank 0 alone.
  void LogSteps(int64_t stage_index, const std::string& metrics_lines);
  // Agrees with the other ranks on what to do before the next step.
  ControlRequest AgreeOnRequest();
  void CommitStage(int64_t stage_index, const SavedCheckpoint& saved);
  void SendEvent(const std::string& kind, int64_t stage_index, const std::string& data);
  int64_t StepsBefore(int64_t stage_index) const;
  CheckpointCursor CursorAt(int64_t stage_index, int64_t steps_done) const;
  bool is_first() const { return collective_.rank() == 0; }

  // This rank's peak in the running stage; on a GPU that of its tensors so far.
  double MemoryOfStage() const;

  const double program_bytes_ = ResidentBytes();  // before anything is loaded
  PeakMemory memory_;
  Plan plan_;  // its own: retain.auto fills in the groups
  Collective& collective_;
  EventChannel& channel_;
  Clock& clock_;
  JobInputs inputs_;
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<TensorboardLog> board_;
  std::unique_ptr<CheckpointKeeper> keeper_;
  std::unique_ptr<ProgressReporter> progress_;
  std::unique_ptr<StageCache> stage_cache_;
  int64_t first_stage_ = 0, first_step_ = 0;
  NamedTensors resumed_state_;  // of a stage that was interrupted; empty otherwise
};

}  // namespace tandem
