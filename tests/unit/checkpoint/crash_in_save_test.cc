// A process that saves is killed before each of its system calls in turn: whatever the moment, the
// job resumes from a whole checkpoint, the older or the new one.
#include <gtest/gtest.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/files.h"
#include "tests/unit/checkpoint/saved_state.h"
#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

enum class Outcome { kKilled, kFinished, kNotTraceable };

// Runs SaveStep(job, 1, 20) in a child and kills it at its n-th system call stop.
Outcome SaveAndKillAt(const std::string& job, int n) {
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(77);
    raise(SIGSTOP);
    _exit(SaveStep(job, 1, 20).ok() ? 0 : 1);
  }
  int state = 0;
  waitpid(child, &state, 0);
  for (int stops = 0; WIFSTOPPED(state); ++stops) {
    if (stops > n) kill(child, SIGKILL);
    if (ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) != 0 && stops <= n) break;
    waitpid(child, &state, 0);
  }
  if (WIFSIGNALED(state)) return Outcome::kKilled;
  EXPECT_TRUE(WIFEXITED(state) && (WEXITSTATUS(state) == 0 || WEXITSTATUS(state) == 77)) << state;
  return WEXITSTATUS(state) == 77 ? Outcome::kNotTraceable : Outcome::kFinished;
}

TEST(CrashInSave, LeavesAWholeCheckpointAtEverySystemCall) {
  int killed = 0, old_taken = 0, new_taken = 0;
  for (int n = 0;; ++n) {
    ASSERT_LT(n, 1000);
    TestFolder job;
    ASSERT_TRUE(SaveStep(job.path(), 1, 10).ok());
    const Outcome outcome = SaveAndKillAt(job.path(), n);
    if (outcome == Outcome::kNotTraceable) GTEST_SKIP() << "ptrace is not allowed here";
    std::vector<std::string> quarantined;
    const auto found = FindNewestCheckpoint(job.path(), "spec", 2, &quarantined);
    ASSERT_TRUE(found.ok() && found->has_value()) << n;
    EXPECT_TRUE(quarantined.empty()) << n << " " << quarantined[0];
    const auto manifest = VerifyCheckpoint(**found);
    ASSERT_TRUE(manifest.ok()) << n;
    (manifest->global_step == 20 ? new_taken : old_taken) += 1;
    // The same save again succeeds, and sweeps what the dead one left.
    ASSERT_TRUE(SaveStep(job.path(), 2, 20).ok()) << n;
    ASSERT_TRUE(KeepNewestCheckpoints(job.path(), 2, 3, **found).ok()) << n;
    const auto left = ListFolder(job.File("checkpoints/e1"));
    for (const std::string& name : *left) EXPECT_EQ(name.find(".tmp"), std::string::npos) << n;
    if (outcome == Outcome::kFinished) break;
    ++killed;
  }
  EXPECT_GT(killed, 30);  // both stops of every call
  EXPECT_GT(old_taken, 10);
  EXPECT_GT(new_taken, 1);
}

}  // namespace
}  // namespace tandem
