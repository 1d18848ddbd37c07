// RankFailure: why a rank must leave, as an exception that only guard.cc catches.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "base/status.h"
#include "worker/plan/messages.h"

namespace tandem {

class RankFailure : public std::runtime_error {
 public:
  // cause: the `kind` of a fatal message, see messages.h.
  RankFailure(RankExit exit_code, std::string cause, const std::string& message)
      : std::runtime_error(message), exit_code_(exit_code), cause_(std::move(cause)) {}
  RankExit exit_code() const { return exit_code_; }
  const std::string& cause() const { return cause_; }

 private:
  RankExit exit_code_;
  std::string cause_;
};

// Throws where the user's model or data is at fault, or the disk.
inline void RequireData(const Status& status) {
  if (!status.ok()) throw RankFailure(RankExit::kDataOrStorage, "DATA", status.ToString());
}
inline void RequireStorage(const Status& status) {
  if (!status.ok()) throw RankFailure(RankExit::kDataOrStorage, "STORAGE", status.ToString());
}
inline void RequirePlan(const Status& status) {
  if (!status.ok()) throw RankFailure(RankExit::kBadPlan, "BAD_PLAN", status.ToString());
}

// The value, or what `require` throws.
template <typename T>
T ValueOr(Result<T> result, void (*require)(const Status&)) {
  require(result.status());
  return std::move(result).value();
}

}  // namespace tandem
