#include "worker/checkpoint/checkpoint_folder.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "base/files.h"
#include "tests/unit/checkpoint/saved_state.h"
#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

TEST(CheckpointFolder, SavesWhatVerifiesBitForBit) {
  TestFolder job;
  const SavedState state(7);
  CheckpointTarget target = TargetIn(job.path(), 2);
  target.parent = job.File("checkpoints/e1/step-000000000003");
  const auto saved = WriteCheckpointFolder(target, CursorAt(7), state.views);
  ASSERT_TRUE(saved.ok()) << saved.status().ToString();
  EXPECT_EQ(saved->folder, AbsolutePath(job.File("checkpoints/e2/step-000000000007")));
  const auto manifest = VerifyCheckpoint(saved->folder);
  ASSERT_TRUE(manifest.ok()) << manifest.status().ToString();
  EXPECT_EQ(manifest->parent, "e1/step-000000000003");
  EXPECT_EQ(manifest->global_step, 7);
  const auto shard = SafetensorsFile::Open(saved->folder + "/shard-0.safetensors");
  ASSERT_TRUE(shard.ok());
  const TensorView* read = (*shard)->Find("layers.0.feature_map_q");
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(std::memcmp(read->data, state.weights.data(), 1200), 0);

  const auto again = WriteCheckpointFolder(target, CursorAt(7), state.views);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->manifest_sha256, saved->manifest_sha256);
}

TEST(CheckpointFolder, KeepsTheNewestAndTheProtected) {
  TestFolder job;
  for (const int64_t step : {10, 20, 30, 40}) ASSERT_TRUE(SaveStep(job.path(), 1, step).ok());
  ASSERT_TRUE(SaveStep(job.path(), 2, 50).ok());
  ASSERT_TRUE(SaveStep(job.path(), 3, 60).ok());  // a later epoch is not ours to touch
  ASSERT_TRUE(MakeFolders(job.File("checkpoints/e1/step-000000000041.tmp-99")).ok());
  const std::string protect = job.File("checkpoints/e1/step-000000000020");
  const Status status = KeepNewestCheckpoints(job.path(), 2, 2, protect);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(*ListFolder(job.File("checkpoints/e1")),
            (std::vector<std::string>{"step-000000000020", "step-000000000040"}));
  EXPECT_EQ(ListFolder(job.File("checkpoints/e2"))->size(), 1u);
  EXPECT_EQ(ListFolder(job.File("checkpoints/e3"))->size(), 1u);
}

// In a child whose files may not grow over 900 bytes: what a full disk looks like.
TEST(CheckpointFolder, FullDiskLeavesTheOlderCheckpointAndNoPieces) {
  TestFolder job;
  ASSERT_TRUE(SaveStep(job.path(), 1, 10).ok());
  const pid_t child = fork();
  if (child == 0) {
    const struct rlimit limit = {900, 900};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    const auto saved = SaveStep(job.path(), 1, 20);
    const std::string& message = saved.status().message();
    const bool right = saved.status().code() == Code::kResourceExhausted &&
                       message.find("older checkpoints stay in force") != std::string::npos;
    _exit(right ? 0 : 1);
  }
  int state = 0;
  ASSERT_EQ(waitpid(child, &state, 0), child);
  EXPECT_TRUE(WIFEXITED(state) && WEXITSTATUS(state) == 0) << state;
  EXPECT_EQ(*ListFolder(job.File("checkpoints/e1")),
            (std::vector<std::string>{"step-000000000010"}));
}

}  // namespace
}  // namespace tandem
