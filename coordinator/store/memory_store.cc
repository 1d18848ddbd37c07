#include "coordinator/store/memory_store.h"

#include <algorithm>
#include <utility>

namespace tandem::store {
namespace {

void Write(const core::Persist& persist, Rows& rows) {
  for (const core::Job& job : persist.jobs) rows.jobs[job.uid] = job;
  for (const core::JobEvent& event : persist.events) {
    rows.events[event.revision] = event;
    rows.revision = event.revision;
  }
  for (const core::RequestRecord& request : persist.requests) rows.requests[request.id] = request;
  for (const core::Worker& worker : persist.workers) rows.workers[worker.name] = worker;
  for (const std::string& id : persist.forgotten_requests) rows.requests.erase(id);
  for (const core::WorkerName& name : persist.forgotten_workers) rows.workers.erase(name);
  rows.events.erase(rows.events.begin(), rows.events.lower_bound(persist.drop_events_below));
}

template <typename Map, typename Value>
void CopyValues(const Map& from, std::vector<Value>* to) {
  for (const auto& [key, value] : from) to->push_back(value);
}

}  // namespace

MemoryStore::MemoryStore(std::shared_ptr<Rows> rows)
    : rows_(std::move(rows)), generation_(++rows_->generation) {}

Result<Contents> MemoryStore::Load(int64_t max_events) {
  Contents contents;
  contents.loaded.generation = generation_;
  contents.loaded.revision = rows_->revision;
  contents.loaded.oldest_event =
      rows_->events.empty() ? rows_->revision + 1 : rows_->events.begin()->first;
  CopyValues(rows_->jobs, &contents.loaded.jobs);
  CopyValues(rows_->workers, &contents.loaded.workers);
  CopyValues(rows_->requests, &contents.loaded.requests);
  const auto first = rows_->events.upper_bound(rows_->revision - max_events);
  for (auto event = first; event != rows_->events.end(); ++event) {
    contents.events.push_back(event->second);
  }
  return contents;
}

Status MemoryStore::Commit(const std::vector<const core::Persist*>& batch) {
  if (!failure_.ok()) return failure_;
  const auto is_empty = [](const core::Persist* persist) { return persist->empty(); };
  if (std::all_of(batch.begin(), batch.end(), is_empty)) return Status::Ok();
  if (rows_->generation != generation_) {
    failure_ = Status(Code::kAborted, "another coordinator has opened the store");
    return failure_;
  }
  if (fail_before_) failure_ = Unavailable("the disk failed before the commit");
  if (!failure_.ok()) return failure_;
  for (const core::Persist* persist : batch) Write(*persist, *rows_);
  if (fail_after_) failure_ = Unavailable("the disk failed after the commit");
  return failure_;
}

Status MemoryStore::Recover() {
  if (rows_->generation == generation_ && !fail_before_ && !fail_after_) failure_ = Status::Ok();
  return failure_;
}

void MemoryStore::FailNextCommit(bool after_writing) {
  (after_writing ? fail_after_ : fail_before_) = true;
}

void MemoryStore::Heal() {
  fail_before_ = false;
  fail_after_ = false;
}

}  // namespace tandem::store
