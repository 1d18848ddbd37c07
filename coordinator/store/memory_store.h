// MemoryStore: a store that forgets when the process ends. For tests and the simulation: what is in
// `Rows` is "the disk", and outlives the MemoryStore (the "process") that wrote it.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>

#include "coordinator/store/store.h"

namespace tandem::store {

struct Rows {
  int64_t generation = 0;
  core::Revision revision = 0;
  std::map<core::JobUid, core::Job> jobs;
  std::map<core::Revision, core::JobEvent> events;
  std::map<std::string, core::RequestRecord> requests;
  std::map<core::WorkerName, core::Worker> workers;
};

// Opening raises rows->generation, as with SQLite: an older MemoryStore over the same rows fails
// its next Commit.
class MemoryStore : public Store {
 public:
  explicit MemoryStore(std::shared_ptr<Rows> rows);
  Result<Contents> Load(int64_t max_events) override;
  Status Commit(const std::vector<const core::Persist*>& batch) override;
  Status Recover() override;
  Status health() const override { return failure_; }
  // Any thread. The next Commit fails, before or after the rows are written ("the reply was lost"),
  // and Recover does until Heal.
  void FailNextCommit(bool after_writing);
  void Heal();

 private:
  std::shared_ptr<Rows> rows_;
  int64_t generation_ = 0;
  Status failure_;
  std::atomic<bool> fail_before_ = false;
  std::atomic<bool> fail_after_ = false;
};

}  // namespace tandem::store
