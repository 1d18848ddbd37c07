// Ctrl-C: what is called, and when it is no longer. In processes of their own: the signals must be
// blocked in every thread.
#include "cli/interrupt.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <thread>

#include "cli/exit_code.h"

namespace tandem::cli {
namespace {

constexpr std::chrono::milliseconds kLook{100};

// 0: Set waited for the call under way.
[[noreturn]] void TakeAwayDuringACall() {
  Interrupts interrupts;
  std::promise<void> entered, release;
  interrupts.Set([&](int) {
    entered.set_value();
    release.get_future().wait();
  });
  kill(getpid(), SIGINT);
  entered.get_future().wait();
  auto taken_away = std::async(std::launch::async, [&] { interrupts.Set(nullptr); });
  const bool waits = taken_away.wait_for(kLook) == std::future_status::timeout;
  release.set_value();
  taken_away.wait();
  _exit(waits ? 0 : 1);
}

[[noreturn]] void AskTwice() {
  Interrupts interrupts;
  StopRequest stop(interrupts);
  if (stop.asked()) _exit(1);
  kill(getpid(), SIGTERM);
  while (!stop.asked()) std::this_thread::yield();
  kill(getpid(), SIGINT);
  for (;;) pause();
}

class InterruptTest : public testing::Test {
 protected:
  InterruptTest() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

TEST_F(InterruptTest, ACallbackThatWasTakenAwayIsNotRunning) {
  EXPECT_EXIT(TakeAwayDuringACall(), testing::ExitedWithCode(0), "");
}

TEST_F(InterruptTest, TheFirstSignalIsARequestAndTheSecondLeaves) {
  EXPECT_EXIT(AskTwice(), testing::ExitedWithCode(kExitInterrupted), "");
}

}  // namespace
}  // namespace tandem::cli
