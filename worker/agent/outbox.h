// Outbox: ends of attempts that the coordinator has not acknowledged yet, kept on disk.
//
// <worker folder>/outbox/<uid>-<epoch>.pb, one serialized AttemptStatus each, written durably
// before it is sent for the first time and deleted when it is acknowledged: an end is never lost,
// whoever dies. A file that does not parse is renamed to *.bad. Confined to the loop's thread;
// writes block for an fsync.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "base/status.h"
#include "tandem/v1/fleet.pb.h"

namespace tandem::agent {

class Outbox {
 public:
  static Result<Outbox> Open(const std::string& folder);
  Status Put(const v1::AttemptStatus& ended);
  // Fine if it is not there.
  void Acknowledge(const std::string& job_uid, int64_t epoch);
  using Key = std::pair<std::string, int64_t>;
  const std::map<Key, v1::AttemptStatus>& pending() const { return pending_; }

 private:
  explicit Outbox(std::string folder) : folder_(std::move(folder)) {}
  std::string PathOf(const Key& key) const;

  std::string folder_;
  std::map<Key, v1::AttemptStatus> pending_;
};

}  // namespace tandem::agent
