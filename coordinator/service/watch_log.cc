#include "coordinator/service/watch_log.h"

#include <algorithm>
#include <utility>

namespace tandem::service {

void WatchLog::StartAfter(int64_t revision) {
  changes_.clear();
  known_after_ = revision;
  newest_ = revision;
}

void WatchLog::Append(JobChange change) {
  TANDEM_CHECK_MSG(change.revision > newest_,
                   std::to_string(change.revision) + " after " + std::to_string(newest_));
  newest_ = change.revision;
  changes_.push_back(std::move(change));
  if (changes_.size() <= kKept) return;
  known_after_ = changes_.front().revision;
  changes_.pop_front();
}

Result<std::vector<const JobChange*>> WatchLog::Since(int64_t revision,
                                                      const std::string& uid) const {
  if (revision > newest_) {
    return OutOfRange("start_revision is " + std::to_string(revision) + "; the newest is " +
                      std::to_string(newest_) + "; start from 0 to get the current state first");
  }
  if (revision < known_after_) {
    return OutOfRange("COMPACTED: start_revision is " + std::to_string(revision) +
                      "; changes are kept after " + std::to_string(known_after_) +
                      "; start from 0 to get the current state first");
  }
  const auto first = std::upper_bound(
      changes_.begin(), changes_.end(), revision,
      [](int64_t wanted, const JobChange& change) { return wanted < change.revision; });
  std::vector<const JobChange*> found;
  for (auto it = first; it != changes_.end(); ++it) {
    if (uid.empty() || it->job->uid() == uid) found.push_back(&*it);
  }
  return found;
}

v1::WatchJobsResponse WatchMessage(const JobChange& change) {
  v1::WatchJobsResponse message;
  message.set_revision(change.revision);
  *message.add_jobs() = *change.job;
  *message.add_events() = change.event;
  return message;
}

}  // namespace tandem::service
