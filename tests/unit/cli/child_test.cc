// Child processes of `tandem run`, and the lock of its work folder.
#include "cli/child.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <thread>

#include "base/files.h"
#include "cli/embedded.h"

namespace tandem::cli {
namespace {

class ChildTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/child-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(root_).ok()); }

  static bool Await(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < deadline) {
      if (condition()) return true;
      std::this_thread::yield();
    }
    return false;
  }
  std::string Log() const { return root_ + "/log"; }

  std::string root_;
};

TEST_F(ChildTest, WritesItsLogAndHasASessionOfItsOwn) {
  Child child("the shell", {"/bin/sh", "-c", "echo out; echo err >&2; exec sleep 60"}, Log());
  ASSERT_TRUE(child.Start().ok());
  ASSERT_TRUE(Await([&] { return LastLines(Log(), 5) == "  out\n  err\n"; }))
      << LastLines(Log(), 5);
  EXPECT_TRUE(child.IsRunning());
  EXPECT_EQ(getsid(child.pid()), child.pid());
  child.Signal(SIGTERM);
  EXPECT_TRUE(Await([&] { return !child.IsRunning(); })) << "SIGTERM is not blocked in the child";
}

TEST_F(ChildTest, ACrashedChildIsStartedAgain) {
  Child child("the shell", {"/bin/sh", "-c", "exec sleep 60"}, Log());
  ASSERT_TRUE(child.Start().ok());
  const pid_t first = child.pid();
  child.Signal(SIGKILL);
  ASSERT_TRUE(
      Await([&] { return child.KeepRunning().ok() && child.IsRunning() && child.pid() != first; }));
}

TEST_F(ChildTest, GivesUpAfterFiveQuickEndsWithTheLog) {
  Child child("the shell", {"/bin/sh", "-c", "echo broken >> /dev/stdout; exit 3"}, Log());
  ASSERT_TRUE(child.Start().ok());
  Status status;
  ASSERT_TRUE(Await([&] { return !(status = child.KeepRunning()).ok(); }));
  EXPECT_NE(status.message().find("the shell left with exit code 3"), std::string::npos)
      << status.message();
  EXPECT_NE(status.message().find("  broken\n"), std::string::npos);
  EXPECT_EQ(LastLines(Log(), 10), "  broken\n  broken\n  broken\n  broken\n  broken\n");
}

TEST_F(ChildTest, AWrongCommandLineIsNotRepeated) {
  Child child("the shell", {"/bin/sh", "-c", "echo usage; exit 2"}, Log());
  ASSERT_TRUE(child.Start().ok());
  ASSERT_TRUE(Await([&] { return !child.KeepRunning().ok(); }));
  EXPECT_EQ(LastLines(Log(), 10), "  usage\n");
}

TEST_F(ChildTest, AMissingBinaryIsNamed) {
  Child child("it", {root_ + "/none"}, Log());
  EXPECT_NE(child.Start().message().find("cannot start " + root_ + "/none"), std::string::npos);
}

TEST_F(ChildTest, OneRunPerWorkFolder) {
  const auto first = EmbeddedCluster::Open(root_, 60);
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  // flock is per open file: a second opening stands for a second process.
  const Status status = EmbeddedCluster::Open(root_, 60).status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("pid " + std::to_string(getpid())), std::string::npos)
      << status.message();
}

TEST_F(ChildTest, TheNewestAttemptsLogIsNamed) {
  const std::string attempts = root_ + "/jobs/u/attempts";
  for (const char* epoch : {"2", "10"}) {
    ASSERT_TRUE(MakeFolders(attempts + "/" + epoch).ok());
    ASSERT_TRUE(WriteFileDurably(attempts + "/" + epoch + "/rank-0.err",
                                 std::string("epoch ") + epoch + "\n")
                    .ok());
  }
  EXPECT_EQ(LogOfFailure(root_, "u"), attempts + "/10/rank-0.err");
  ASSERT_TRUE(MakeFolders(attempts + "/11").ok());
  EXPECT_EQ(LogOfFailure(root_, "u"), attempts + "/11") << "it has written nothing";
  EXPECT_EQ(LogOfFailure(root_, "other"), "");
}

}  // namespace
}  // namespace tandem::cli
