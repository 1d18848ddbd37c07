// JobBoard: what readers see of the jobs: their rows, their events, and the watchers.
//
// The state thread publishes each batch here after its commit and before any reply, so a reader
// never sees what could still be lost, and always sees what it was told. Updating costs the changed
// rows only; a copy of the whole state per batch would not. Locked by mu_; readers copy what they
// need under it. Watchers are called under it too: Offer only queues, so nobody waits for a slow
// client.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "coordinator/loop/metrics.h"
#include "coordinator/service/watch_log.h"
#include "tandem/v1/job.pb.h"
#include "tandem/v1/service.pb.h"

namespace tandem::service {

// One open WatchJobs stream. Calls must not block and must not call back into the board.
class Watcher {
 public:
  virtual ~Watcher() = default;
  // False when the watcher's queue is full: it has been closed and gets nothing more.
  virtual bool Offer(v1::WatchJobsResponse message) = 0;
  // Less than half of its queue is used: messages that may be left out are welcome.
  virtual bool HasRoom() const = 0;
  // The coordinator stops.
  virtual void End() = 0;
};

// A job as it is now. `order`: the revision of its submission, which sorts lists.
struct BoardRow {
  int64_t order = 0;
  std::shared_ptr<const v1::Job> job;
};

class JobBoard {
 public:
  // Events of the newest kKeptEvents revisions are kept per job.
  static constexpr size_t kKeptEvents = 1'000;
  static constexpr int64_t kMarkPeriodMs = 10'000;

  // Start: all jobs, the newest events in order (of these jobs), and the newest revision. Once,
  // before any other call.
  void Load(const std::vector<BoardRow>& rows, std::vector<v1::JobEvent> events,
            const std::vector<std::string>& event_uids, int64_t revision);
  // A durable change, in order of revision: the job as it is after it, and its event.
  void Publish(const BoardRow& row, const v1::JobEvent& event);
  // Something live has changed, such as progress: readers see it at once, watchers with the next
  // Tick.
  void Refresh(const BoardRow& row);
  // Why the store takes no writes, or "": watchers are told when it changes.
  void ShowStoreFailure(const std::string& why);

  // name: projects/{project}/jobs/{job}, a uid, or a job id in project `default`. INVALID_ARGUMENT,
  // NOT_FOUND.
  Result<v1::Job> Find(const std::string& name) const;
  struct Page {
    std::vector<v1::Job> jobs;
    int64_t next_position = 0;  // 0: the end
  };
  // Newest first; `position` from the page before, or 0. Empty project or state: all.
  Page List(const std::string& project, const std::string& state, int64_t position,
            size_t page_size) const;
  Result<std::vector<v1::JobEvent>> Events(const std::string& name) const;

  // Queues what the watcher missed and keeps it informed until Unwatch. Errors as WatchLog::Since
  // and Find.
  Status Watch(const std::shared_ptr<Watcher>& watcher, const std::string& name,
               int64_t start_revision);
  void Unwatch(const Watcher* watcher);
  void EndWatches();
  // New progress to watchers; a progress mark every kMarkPeriodMs. Called about twice a second.
  void Tick(int64_t now_ms);

  // Fills the gauges that are about jobs.
  void FillGauges(FleetGauges* gauges) const;

 private:
  struct Row {
    int64_t order = 0;
    std::shared_ptr<const v1::Job> job;
    std::deque<v1::JobEvent> events;
  };
  struct Watching {
    std::shared_ptr<Watcher> watcher;
    std::string uid;  // empty: all jobs
  };
  void Put(const BoardRow& row) TANDEM_REQUIRES(mu_);
  void Remember(const std::string& uid, const v1::JobEvent& event) TANDEM_REQUIRES(mu_);
  // A message of the present: the newest revision, and whether the store takes writes.
  v1::WatchJobsResponse Mark() const TANDEM_REQUIRES(mu_);
  void OfferToAll(const v1::WatchJobsResponse& message, const std::string& uid)
      TANDEM_REQUIRES(mu_);
  Result<const Row*> FindRow(const std::string& name) const TANDEM_REQUIRES(mu_);
  Status SendBacklog(Watcher& watcher, const std::string& uid, int64_t start_revision) const
      TANDEM_REQUIRES(mu_);
  mutable Mutex mu_;
  std::map<std::string, Row> rows_ TANDEM_GUARDED_BY(mu_);  // by uid
  std::map<std::string, std::string> uid_by_name_ TANDEM_GUARDED_BY(mu_);
  std::map<int64_t, std::string> uid_by_order_ TANDEM_GUARDED_BY(mu_);
  WatchLog log_ TANDEM_GUARDED_BY(mu_);
  std::vector<Watching> watching_ TANDEM_GUARDED_BY(mu_);
  std::set<std::string> refreshed_ TANDEM_GUARDED_BY(mu_);  // uids; until the next Tick
  std::string store_failure_ TANDEM_GUARDED_BY(mu_);
  int64_t next_mark_ms_ TANDEM_GUARDED_BY(mu_) = 0;
};

}  // namespace tandem::service
