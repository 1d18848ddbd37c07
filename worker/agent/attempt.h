// Attempt: one launch of one job on this worker, from the coordinator's order to its end.
//
//   waiting -> inspecting -> preparing -> planning -> running -> reporting -> ended
//                 spec/       python      newest       mpirun     python
//                                        checkpoint
// From every phase an error, a stop or a fence leads through `sweeping` (kill whatever carries the
// attempt's mark, wait until nothing of it lives) to `ended`: when the end is told, no process of
// the attempt can write any more. Waiting lasts until the owner calls Begin, when no older attempt
// of the job lives here. Confined to the loop's thread. Shared ownership: errands and children in
// flight hold weak references.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tandem/v1/fleet.pb.h"
#include "worker/agent/errands.h"
#include "worker/agent/exit_cause.h"
#include "worker/agent/gpu_pool.h"
#include "worker/agent/launcher.h"
#include "worker/agent/metrics.h"
#include "worker/agent/progress.h"
#include "worker/agent/python_step.h"
#include "worker/agent/rank_socket.h"

namespace tandem::agent {

// The same for all attempts of a worker.
struct AttemptConfig {
  std::string jobs_folder;    // <work>/jobs
  std::string cache_folder;   // <work>/cache/tokens
  std::string stage_cache;    // <work>/cache/stages
  std::string worker_folder;  // <work>/workers/<name>, marks the processes
  std::string runtime;        // short; sockets and MPI's temporary files
  std::string python;
  std::string python_path;
  int64_t threads_per_slot = 1;
  int64_t hang_ms = 120'000;
  int64_t stop_ms = 60'000;
  int64_t log_bytes = 64 << 20;  // kept of each log file's end
};

struct AttemptTools {
  const Clock& clock;
  EventLoop& loop;
  Children& children;
  Launcher& launcher;
  GpuPool& gpus;
  Errands& errands;
};

class Attempt : public std::enable_shared_from_this<Attempt> {
 public:
  struct Listener {
    std::function<void(const Attempt&)> changed;          // phase or progress
    std::function<void(v1::ChannelRequest)> committed;    // a checkpoint or a stage
    std::function<void(const v1::AttemptStatus&)> ended;  // once, at the very end
  };
  Attempt(const AttemptConfig& config, AttemptTools tools, v1::Launch launch,
          int64_t scratch_number, Listener listener);
  ~Attempt();
  Attempt(const Attempt&) = delete;
  Attempt& operator=(const Attempt&) = delete;

  void Begin();
  // Ranks write a checkpoint and leave; earlier phases end at once, the report is still made.
  void StopWithCheckpoint(const std::string& reason);
  // Ends it now with this cause.
  void Finish(const std::string& cause, const std::string& detail);
  // Watchdog, deadlines, sweeping. Call often.
  void Tick();

  bool has_begun() const { return phase_ != Phase::kWaiting; }
  bool has_ended() const { return phase_ == Phase::kEnded; }
  const v1::AttemptRef& ref() const { return launch_.attempt(); }
  const std::string& job_name() const { return launch_.job_name(); }
  v1::AttemptStatus CurrentStatus() const;
  AttemptGauges Gauges() const;

 private:
  enum class Phase {
    kWaiting,
    kInspecting,
    kPreparing,
    kPlanning,
    kRunning,
    kReporting,
    kSweeping,
    kEnded
  };

  // Each begins the next phase.
  void Inspect();
  void Prepare();
  void ChooseCheckpoint();
  void StartRanks(const std::string& resume_from);
  void MakeReport();
  void PublishEnd();

  Status TakeGpus();
  Status MakeAttemptFolders() const;
  void OnPrepareLine(const std::string& line);
  void OnPrepareDone(ChildExit exit);
  void OnRankMessage(const RankMessage& message);
  void OnRankEvent(const RankMessage& message);
  void OnCheckpoint(const RankMessage& message);
  void OnGangEnd(ChildExit exit);
  void OnReportDone(ChildExit exit);
  bool ReadReport();  // false: it has finished the attempt
  void CheckDeadlines();
  void BoundLogsSoon();
  void RemoveScratch() const;
  PythonCommand PythonCommandFor(const std::string& name, const std::string& module) const;
  // Runs `work` as an errand and `then` with its result on the loop, if the attempt still is in
  // this phase.
  template <typename T>
  void InBackground(std::function<T()> work, std::function<void(T)> then);
  void NotifyChanged() { listener_.changed(*this); }
  std::string FileOf(const std::string& name) const;

  const AttemptConfig& config_;
  AttemptTools tools_;
  const v1::Launch launch_;
  const Listener listener_;
  const std::string job_folder_;
  const std::string attempt_folder_;
  const std::string scratch_folder_;
  const std::string mark_;

  Phase phase_ = Phase::kWaiting;
  Progress progress_;
  std::vector<GpuId> gpus_;  // from Begin to the end; empty on the CPU
  int64_t started_ms_ = 0;
  std::unique_ptr<PythonStep> python_;
  std::string tokens_;         // prepare's result
  std::string prepare_error_;  // what is wrong with the user's data
  std::unique_ptr<RankSocket> socket_;
  LaunchHandle gang_ = 0;  // 0: none lives
  GangEnd gang_end_;
  int64_t next_log_look_ms_ = 0;
  int64_t stop_deadline_ms_ = 0;  // 0: not stopping
  std::string stop_reason_;
  v1::AttemptStatus end_;  // grows; complete in kEnded
};

}  // namespace tandem::agent
