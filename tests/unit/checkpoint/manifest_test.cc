#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/unit/checkpoint/saved_state.h"
#include "tests/unit/model_files/folder.h"
#include "worker/plan/checkpoint_manifest.h"

namespace tandem {
namespace {

CheckpointManifest Example() {
  CheckpointManifest manifest;
  manifest.job_uid = "uid-1";
  manifest.spec_sha256 = "aa";
  manifest.base_sha256 = "bb";
  manifest.epoch = 3;
  manifest.stage_index = 1;
  manifest.stage = "finetune";
  manifest.stage_step = 20;
  manifest.global_step = 320;
  manifest.data_parallel = 2;
  manifest.parent = "e2/step-000000000300";
  manifest.files = {{"shard-0.safetensors", 1234, 0xdeadbeef, "cc"}};
  return manifest;
}

TEST(CheckpointManifest, RoundTrips) {
  const std::string text = CheckpointManifestToJson(Example());
  const auto back = CheckpointManifestFromJson(text, "m");
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(CheckpointManifestToJson(*back), text);
  EXPECT_EQ(back->files[0].crc32c, 0xdeadbeefu);
  EXPECT_EQ(back->parent, "e2/step-000000000300");
}

// Every single changed, missing or added byte is found.
TEST(CheckpointManifest, FindsEveryFlippedByte) {
  const std::string text = CheckpointManifestToJson(Example());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    ASSERT_EQ(CheckpointManifestFromJson(damaged, "m").status().code(), Code::kDataLoss) << i;
    ASSERT_FALSE(CheckpointManifestFromJson(text.substr(0, i), "m").ok()) << i;
  }
  EXPECT_FALSE(CheckpointManifestFromJson(text + " ", "m").ok());
}

TEST(FindNewestCheckpoint, TakesTheMostStepsBelowTheEpoch) {
  TestFolder job;
  EXPECT_FALSE(FindNewestCheckpoint(job.path(), "spec", 5)->has_value());
  ASSERT_TRUE(SaveStep(job.path(), 1, 10).ok());
  ASSERT_TRUE(SaveStep(job.path(), 1, 30).ok());
  ASSERT_TRUE(SaveStep(job.path(), 2, 20).ok());
  ASSERT_TRUE(SaveStep(job.path(), 3, 40).ok());
  const auto below = [&](int64_t epoch) {
    const auto found = FindNewestCheckpoint(job.path(), "spec", epoch);
    EXPECT_TRUE(found.ok()) << found.status().ToString();
    return found->value_or("");
  };
  EXPECT_EQ(below(4), AbsolutePath(job.File("checkpoints/e3/step-000000000040")));
  EXPECT_EQ(below(3), AbsolutePath(job.File("checkpoints/e1/step-000000000030")));
  EXPECT_EQ(below(1), "");
  EXPECT_FALSE(FindNewestCheckpoint(job.path(), "another spec", 9)->has_value());
}

TEST(FindNewestCheckpoint, QuarantinesDamageAndTakesTheElder) {
  TestFolder job;
  ASSERT_TRUE(SaveStep(job.path(), 1, 10).ok());
  const auto newest = SaveStep(job.path(), 1, 20);
  ASSERT_TRUE(newest.ok());
  const std::string shard = newest->folder + "/shard-0.safetensors";
  std::string bytes = *ReadFile(shard);
  bytes[bytes.size() - 9] = static_cast<char>(bytes[bytes.size() - 9] ^ 0x10);
  ASSERT_TRUE(WriteFileDurably(shard, bytes).ok());
  ASSERT_TRUE(MakeFolders(job.File("checkpoints/e1/step-000000000030")).ok());  // no manifest
  ASSERT_TRUE(MakeFolders(job.File("checkpoints/e1/step-000000000040.tmp-7")).ok());

  std::vector<std::string> quarantined;
  const auto found = FindNewestCheckpoint(job.path(), "spec", 2, &quarantined);
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->value_or(""), AbsolutePath(job.File("checkpoints/e1/step-000000000010")));
  EXPECT_EQ(quarantined.size(), 2u);
  EXPECT_FALSE(PathExists(newest->folder));
  EXPECT_TRUE(PathExists(newest->folder + ".bad"));
  EXPECT_TRUE(PathExists(job.File("checkpoints/e1/step-000000000040.tmp-7")));
}

}  // namespace
}  // namespace tandem
