// What processes ask of each other: one in a folder, and none that outlives its parent.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/file_lock.h"
#include "base/files.h"
#include "base/parent_process.h"

namespace tandem {
namespace {

// The exit code of what `body` returns in a child process.
template <typename Body>
int InChild(const Body& body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

TEST(FileLock, NamesItsOwnerToWhoeverIsRefused) {
  std::string folder = testing::TempDir() + "lock-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/lock";
  std::string owner;
  {
    FileLock first;
    ASSERT_TRUE(first.Take(path, &owner).ok());
    EXPECT_EQ(owner, "");
    FileLock second;  // flock is per open file: this stands for a second process
    EXPECT_EQ(second.Take(path, &owner).code(), Code::kFailedPrecondition);
    EXPECT_EQ(owner, std::to_string(getpid()));
  }
  FileLock third;
  EXPECT_TRUE(third.Take(path, &owner).ok()) << "let go with the object";
  owner.clear();
  FileLock nowhere;
  EXPECT_EQ(nowhere.Take(folder + "/none/lock", &owner).code(), Code::kNotFound);
  EXPECT_EQ(owner, "");
  EXPECT_TRUE(RemoveTree(folder).ok());
}

TEST(DieWithParent, IsAskedOfALivingParent) {
  EXPECT_EQ(InChild([] { return DieWithParent() ? 0 : 1; }), 0);
}

// A container's first process may be the one that starts us.
TEST(DieWithParent, AParentThatIsProcessOneLives) {
  constexpr int kMayNot = 77;
  const int code = InChild([] {
    if (unshare(CLONE_NEWPID) != 0) return kMayNot;
    return InChild([] {  // process 1 of the new namespace
      return InChild([] { return getppid() == 1 && DieWithParent() ? 0 : 1; });
    });
  });
  if (code == kMayNot) GTEST_SKIP() << "needs the right to make process namespaces";
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace tandem
