// Store: where accepted means durable. The core's rows in, the core's rows out; no decisions.
//
// Confined to one thread (the state thread or a store thread). After a failed Commit every later
// one fails with the same Status: memory is ahead of the disk, and only Recover and a new start
// from Load make them agree again. Implementations: sqlite_store.h (the default), memory_store.h
// (tests and simulation; holds what a disk would hold).
#pragma once

#include "base/status.h"
#include "coordinator/core/effect.h"
#include "coordinator/core/event.h"

namespace tandem::store {

struct Contents {
  core::StoreLoaded loaded;            // ready to be stepped
  std::vector<core::JobEvent> events;  // the newest ones, ascending; for watches and ListEvents
};

class Store {
 public:
  virtual ~Store() = default;
  // All rows, and the newest `max_events` events. Before the first Commit, and after Recover.
  virtual Result<Contents> Load(int64_t max_events) = 0;
  // One transaction, durable on return, for all steps of a batch in order. Empty batches cost
  // nothing.
  virtual Status Commit(const std::vector<const core::Persist*>& batch) = 0;
  // After a failed Commit: a trial write. OK: Commit works again, after Load. Else it stays failed:
  // the disk is still full, the file is damaged, or another coordinator has it.
  virtual Status Recover() = 0;
  // OK, or the failure that latched.
  virtual Status health() const = 0;
};

}  // namespace tandem::store
