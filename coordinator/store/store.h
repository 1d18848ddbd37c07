// Store: where accepted means durable. The core's rows in, the core's rows out; no decisions.
//
// Confined to one thread (the state thread or a store thread). After the first failed Commit every
// later one fails with the same Status: memory is ahead of the disk, and only a new start from Load
// makes them agree again. Implementations: sqlite_store.h (the default), memory_store.h (tests and
// simulation; holds what a disk would hold).
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
  // All rows, and the newest `max_events` events. Once, before any Commit.
  virtual Result<Contents> Load(int64_t max_events) = 0;
  // One transaction, durable on return, for all steps of a batch in order. Empty batches cost
  // nothing.
  virtual Status Commit(const std::vector<const core::Persist*>& batch) = 0;
  // OK, or the failure that latched.
  virtual Status health() const = 0;
};

}  // namespace tandem::store
