// Turn: one step in the making. Handlers change the state through it, so that every durable change
// of a job gets its event and its row, every index follows, and no effect can be forgotten.
//
// Lives for one Step, on the state thread. Illegal transitions abort: they are our bugs, and must
// not reach the store.
#pragma once

#include <set>
#include <string>
#include <utility>

#include "coordinator/core/effect.h"
#include "coordinator/core/state.h"

namespace tandem::core {

class Turn {
 public:
  Turn(State& state, const Now& now) : state_(state), now_(now) {}
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  State& state() { return state_; }
  const Limits& limits() const { return state_.limits; }
  const Now& now() const { return now_; }
  Effects& effects() { return effects_; }

  Job* FindJob(const JobUid& uid);
  Worker* FindWorker(const WorkerName& name);
  // The worker, if the message came on its present connection; it was seen now. Else null: ignore
  // the message.
  Worker* Sender(const WorkerName& name, ConnectionId connection);
  // As LiveJob of state.h, to be changed.
  Job* FindLive(const AttemptRef& attempt, const Worker& worker);

  // A durable change that leaves the job's state: one event, the next revision, the job's row.
  void Record(Job& job, const char* kind, std::string message, std::string reason = "");
  // The same with a change of state.
  void Move(Job& job, JobState to, const char* kind, std::string message, std::string reason = "");
  // A new job is in line.
  void Enqueue(Job& job);
  // PENDING only: why it waits.
  void Explain(Job& job, PendingReason reason, std::string detail);
  // PENDING only: not before `until_ms`.
  void BackOff(Job& job, int64_t until_ms);
  // Live state looks different.
  void Touch(const Job& job) { effects_.touched_jobs.insert(job.uid); }
  void Touch(const Worker& worker) { effects_.touched_workers.insert(worker.name); }
  // A durable change of a worker.
  void Save(const Worker& worker);

  // Dropped when the worker is not connected: what follows from the state is said again when it
  // registers.
  template <typename What>
  void Send(const Worker& worker, What what) {
    if (worker.connection == 0) return;
    effects_.commands.push_back({worker.name, worker.connection, std::move(what)});
  }
  void Answer(RequestToken token, Status status);
  void AnswerJob(RequestToken token, const JobUid& job, bool replayed = false);
  void AnswerWorker(RequestToken token, const WorkerName& worker);

  // Slots or jobs have come or gone: a scheduling pass is due at the end of the step.
  void WantSchedule() { schedule_wanted_ = true; }
  bool schedule_wanted() const { return schedule_wanted_; }

  // Adds the rows of all changed jobs and workers, each once.
  Effects Finish();

 private:
  void Dequeue(Job& job);
  void AddEvent(Job& job, JobState before, const char* kind, std::string message,
                std::string reason);

  State& state_;
  const Now now_;
  Effects effects_;
  std::set<JobUid> changed_jobs_;
  std::set<WorkerName> changed_workers_;
  bool schedule_wanted_ = false;
};

}  // namespace tandem::core
