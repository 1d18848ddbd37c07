#include "coordinator/service/job_board.h"

#include <algorithm>
#include <utility>

#include "coordinator/service/job_names.h"

namespace tandem::service {
namespace {

constexpr int kJobsPerMessage = 50;
constexpr size_t kBytesPerMessage = 1 << 20;

// Gathers a backlog into few messages, each well under what a client receives.
class Batches {
 public:
  // store_failure: stands in every message.
  Batches(Watcher& watcher, const std::string& store_failure) : watcher_(watcher) {
    message_.set_store_failure(store_failure);
  }

  void Add(int64_t revision, const v1::Job& job, const v1::JobEvent* event) {
    const size_t bytes = job.ByteSizeLong();
    if (message_.jobs_size() >= kJobsPerMessage || bytes_ + bytes > kBytesPerMessage) Offer();
    bytes_ += bytes;
    message_.set_revision(revision);
    *message_.add_jobs() = job;
    if (event != nullptr) *message_.add_events() = *event;
  }

  // Sends the rest; `revision` stands in the message when there was nothing to send.
  Status Flush(int64_t revision) {
    if (message_.jobs_size() == 0) message_.set_revision(revision);
    Offer();
    if (taken_) return Status::Ok();
    return ResourceExhausted("too much has changed since start_revision; start from 0");
  }

 private:
  void Offer() {
    if (taken_) taken_ = watcher_.Offer(message_);
    message_.clear_jobs();
    message_.clear_events();
    bytes_ = 0;
  }

  Watcher& watcher_;
  v1::WatchJobsResponse message_;
  size_t bytes_ = 0;
  bool taken_ = true;
};

}  // namespace

void JobBoard::Load(const std::vector<BoardRow>& rows, std::vector<v1::JobEvent> events,
                    const std::vector<std::string>& event_uids, int64_t revision) {
  TANDEM_CHECK(events.size() == event_uids.size());
  MutexLock lock(mu_);
  for (const BoardRow& row : rows) Put(row);
  log_.StartAfter(events.empty() ? revision : events.front().revision() - 1);
  for (size_t i = 0; i < events.size(); ++i) {
    const auto row = rows_.find(event_uids[i]);
    if (row == rows_.end()) continue;
    Remember(row->first, events[i]);
    log_.Append({events[i].revision(), row->second.job, std::move(events[i])});
  }
}

void JobBoard::Put(const BoardRow& from) {
  Row& row = rows_[from.job->uid()];
  if (row.job == nullptr) {
    row.order = from.order;
    uid_by_name_[from.job->name()] = from.job->uid();
    uid_by_order_[from.order] = from.job->uid();
  }
  row.job = from.job;
}

void JobBoard::Remember(const std::string& uid, const v1::JobEvent& event) {
  std::deque<v1::JobEvent>& events = rows_[uid].events;
  events.push_back(event);
  if (events.size() > kKeptEvents) events.pop_front();
}

void JobBoard::Publish(const BoardRow& row, const v1::JobEvent& event) {
  MutexLock lock(mu_);
  Put(row);
  Remember(row.job->uid(), event);
  refreshed_.erase(row.job->uid());
  JobChange change{event.revision(), row.job, event};
  v1::WatchJobsResponse message = WatchMessage(change);
  message.set_store_failure(store_failure_);
  log_.Append(std::move(change));
  OfferToAll(message, row.job->uid());
}

void JobBoard::Refresh(const BoardRow& row) {
  MutexLock lock(mu_);
  Put(row);
  refreshed_.insert(row.job->uid());
}

void JobBoard::ShowStoreFailure(const std::string& why) {
  MutexLock lock(mu_);
  if (why == store_failure_) return;
  store_failure_ = why;
  OfferToAll(Mark(), "");
}

v1::WatchJobsResponse JobBoard::Mark() const {
  v1::WatchJobsResponse mark;
  mark.set_revision(log_.newest());
  mark.set_store_failure(store_failure_);
  return mark;
}

void JobBoard::OfferToAll(const v1::WatchJobsResponse& message, const std::string& uid) {
  const auto lost = std::remove_if(watching_.begin(), watching_.end(), [&](const Watching& one) {
    const bool wanted = uid.empty() || one.uid.empty() || one.uid == uid;
    return wanted && !one.watcher->Offer(message);
  });
  watching_.erase(lost, watching_.end());
}

Result<const JobBoard::Row*> JobBoard::FindRow(const std::string& name) const {
  TANDEM_RETURN_IF_ERROR(CheckJobName(name));
  const bool whole = name.find('/') != std::string::npos;
  const auto named = uid_by_name_.find(whole ? name : JobName(kDefaultProject, name));
  const auto row = rows_.find(named == uid_by_name_.end() ? name : named->second);
  if (row == rows_.end()) {
    return NotFound("there is no job '" + name + "'; `tandem list` shows all");
  }
  return &row->second;
}

Result<v1::Job> JobBoard::Find(const std::string& name) const {
  MutexLock lock(mu_);
  TANDEM_ASSIGN_OR_RETURN(const Row* row, FindRow(name));
  return *row->job;
}

Result<std::vector<v1::JobEvent>> JobBoard::Events(const std::string& name) const {
  MutexLock lock(mu_);
  TANDEM_ASSIGN_OR_RETURN(const Row* row, FindRow(name));
  return std::vector<v1::JobEvent>(row->events.begin(), row->events.end());
}

JobBoard::Page JobBoard::List(const std::string& project, const std::string& state,
                              int64_t position, size_t page_size) const {
  MutexLock lock(mu_);
  Page page;
  auto it = position > 0 ? uid_by_order_.lower_bound(position) : uid_by_order_.end();
  int64_t last = 0;
  while (it != uid_by_order_.begin()) {
    --it;
    const Row& row = rows_.at(it->second);
    if (!state.empty() && StateName(row.job->state()) != state) continue;
    if (!project.empty() && ProjectOf(row.job->name()) != project) continue;
    if (page.jobs.size() == page_size) {
      page.next_position = last;
      break;
    }
    page.jobs.push_back(*row.job);
    last = it->first;
  }
  return page;
}

Status JobBoard::Watch(const std::shared_ptr<Watcher>& watcher, const std::string& name,
                       int64_t start_revision) {
  MutexLock lock(mu_);
  std::string uid;
  if (!name.empty()) {
    TANDEM_ASSIGN_OR_RETURN(const Row* row, FindRow(name));
    uid = row->job->uid();
  }
  TANDEM_RETURN_IF_ERROR(SendBacklog(*watcher, uid, start_revision));
  watching_.push_back({watcher, uid});
  return Status::Ok();
}

Status JobBoard::SendBacklog(Watcher& watcher, const std::string& uid,
                             int64_t start_revision) const {
  Batches batches(watcher, store_failure_);
  if (start_revision > 0) {
    TANDEM_ASSIGN_OR_RETURN(const auto changes, log_.Since(start_revision, uid));
    for (const JobChange* change : changes) {
      batches.Add(change->revision, *change->job, &change->event);
    }
    return batches.Flush(start_revision);
  }
  for (const auto& [order, job_uid] : uid_by_order_) {
    if (!uid.empty() && job_uid != uid) continue;
    batches.Add(log_.newest(), *rows_.at(job_uid).job, nullptr);
  }
  return batches.Flush(log_.newest());
}

void JobBoard::Unwatch(const Watcher* watcher) {
  MutexLock lock(mu_);
  const auto gone =
      std::remove_if(watching_.begin(), watching_.end(),
                     [watcher](const Watching& one) { return one.watcher.get() == watcher; });
  watching_.erase(gone, watching_.end());
}

void JobBoard::EndWatches() {
  MutexLock lock(mu_);
  for (const Watching& one : watching_) one.watcher->End();
  watching_.clear();
}

void JobBoard::Tick(int64_t now_ms) {
  MutexLock lock(mu_);
  for (const std::string& uid : std::exchange(refreshed_, {})) {
    v1::WatchJobsResponse message = Mark();
    *message.add_jobs() = *rows_.at(uid).job;
    for (const Watching& one : watching_) {
      if ((one.uid.empty() || one.uid == uid) && one.watcher->HasRoom())
        one.watcher->Offer(message);
    }
  }
  if (now_ms < next_mark_ms_) return;
  next_mark_ms_ = now_ms + kMarkPeriodMs;
  OfferToAll(Mark(), "");
}

void JobBoard::FillGauges(FleetGauges* gauges) const {
  for (int state = v1::JobState_MIN + 1; state <= v1::JobState_MAX; ++state) {
    gauges->jobs_by_state[StateName(static_cast<v1::JobState>(state))] = 0;
  }
  MutexLock lock(mu_);
  for (const auto& [uid, row] : rows_) {
    ++gauges->jobs_by_state[StateName(row.job->state())];
    if (row.job->state() == v1::JOB_STATE_PENDING) {
      ++gauges->pending_by_reason[row.job->reason()];
    }
  }
  gauges->event_revision = log_.newest();
  gauges->watchers = static_cast<int64_t>(watching_.size());
}

}  // namespace tandem::service
