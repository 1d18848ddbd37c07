#include "base/clock.h"

#include <chrono>
#include <cstdio>
#include <ctime>

namespace tandem {
namespace {

class SystemClock : public Clock {
 public:
  int64_t MonotonicMs() const override { return MonotonicNs() / 1'000'000; }
  int64_t MonotonicNs() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  int64_t WallMs() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace

Clock& Clock::System() {
  static SystemClock clock;
  return clock;
}

UtcText FormatUtc(int64_t wall_ms) {
  const std::time_t seconds = wall_ms / 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  UtcText out{};
  char date[24];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(out.text, sizeof out.text, "%s.%03dZ", date, static_cast<int>(wall_ms % 1000));
  return out;
}

}  // namespace tandem
