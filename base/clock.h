// Clock: the only place where time comes from (a test of the tree bans ::now() elsewhere).
// Passed by reference to whoever needs time, so that tests move it by hand. Thread-safe.
#pragma once

#include <cstdint>

namespace tandem {

class Clock {
 public:
  virtual ~Clock() = default;
  // Milliseconds that only grow; for leases, deadlines and durations.
  virtual int64_t MonotonicMs() const = 0;
  // Milliseconds since 1970-01-01 UTC; for people.
  virtual int64_t WallMs() const = 0;
  // The same as MonotonicMs in nanoseconds, for measuring steps.
  virtual int64_t MonotonicNs() const { return MonotonicMs() * 1'000'000; }

  // The machine's clock.
  static Clock& System();
};

// Stands still until moved. Not locked: move it from the test's thread only.
class FakeClock : public Clock {
 public:
  int64_t MonotonicMs() const override { return now_ms_; }
  int64_t WallMs() const override { return 1'700'000'000'000 + now_ms_; }
  void AdvanceMs(int64_t ms) { now_ms_ += ms; }

 private:
  int64_t now_ms_ = 1'000;
};

// "2026-11-24T17:35:00.123Z"
struct UtcText {
  char text[32];
};
UtcText FormatUtc(int64_t wall_ms);

}  // namespace tandem
