// WatchLog: the last changes of all jobs in order, so that a watcher can go on where it stopped.
//
// Keeps the newest kKept changes; what is older is compacted, and a watcher that starts there is
// told to list again. Plain data, confined to its owner's lock (JobBoard).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "tandem/v1/job.pb.h"
#include "tandem/v1/service.pb.h"

namespace tandem::service {

// One durable change: the event, and the job right after it.
struct JobChange {
  int64_t revision = 0;
  std::shared_ptr<const v1::Job> job;
  v1::JobEvent event;
};

class WatchLog {
 public:
  static constexpr size_t kKept = 10'000;

  // What happened before `revision` is not known here.
  void StartAfter(int64_t revision);
  // change.revision must be above all before.
  void Append(JobChange change);

  // Revision of the newest change.
  int64_t newest() const { return newest_; }
  // Changes after `revision`, of one job (uid) or all (""). OUT_OF_RANGE, starting with COMPACTED,
  // when the log no longer reaches back so far; OUT_OF_RANGE when `revision` is in the future.
  Result<std::vector<const JobChange*>> Since(int64_t revision, const std::string& uid) const;

 private:
  std::deque<JobChange> changes_;
  int64_t known_after_ = 0;  // changes above this are in changes_
  int64_t newest_ = 0;
};

v1::WatchJobsResponse WatchMessage(const JobChange& change);

}  // namespace tandem::service
