// Timeline: virtual time. Things happen in order of time, and of being planned when times are
// equal.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

namespace tandem::sim {

class Timeline {
 public:
  int64_t now_ms() const { return now_ms_; }
  void After(int64_t delay_ms, std::function<void()> action) {
    actions_.emplace(std::pair(now_ms_ + delay_ms, next_++), std::move(action));
  }
  // False when nothing is planned.
  bool RunNext() {
    if (actions_.empty()) return false;
    auto first = actions_.extract(actions_.begin());
    now_ms_ = first.key().first;
    first.mapped()();
    return true;
  }

 private:
  int64_t now_ms_ = 1'000;
  uint64_t next_ = 0;
  std::map<std::pair<int64_t, uint64_t>, std::function<void()>> actions_;
};

}  // namespace tandem::sim
