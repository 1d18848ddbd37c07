#include "worker/evaluate/cost.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

std::string Line(const char* stage, int stage_index, int step, double seconds) {
  return std::string("{\"stage\":\"") + stage +
         "\",\"stage_index\":" + std::to_string(stage_index) + ",\"step\":" + std::to_string(step) +
         ",\"loss\":1.0,\"tokens\":100,\"seconds\":" + std::to_string(seconds) + "}\n";
}

TEST(Cost, NewestAttemptOfEachStepCounts) {
  TestFolder folder;
  const auto write = [&folder](const std::string& epoch, const std::string& text) {
    ASSERT_TRUE(MakeFolders(folder.File("attempts/" + epoch)).ok());
    ASSERT_TRUE(WriteFileDurably(folder.File("attempts/" + epoch + "/metrics.jsonl"), text).ok());
  };
  // Attempt 9 dies in the middle of a line; attempt 10 repeats step 2 of the second stage.
  write("9", Line("attention_transfer", 0, 1, 2) + Line("finetune", 1, 1, 3) +
                 Line("finetune", 1, 2, 4) + "{\"stage\":\"fine");
  write("10", Line("finetune", 1, 2, 5) + Line("finetune", 1, 3, 6));
  const Cost cost = TrainingCost(folder.path());
  ASSERT_EQ(cost.stages.size(), 2u);
  EXPECT_EQ(cost.stages[0].stage, "attention_transfer");
  EXPECT_EQ(cost.stages[0].tokens, 100);
  EXPECT_EQ(cost.stages[1].tokens, 300);
  EXPECT_DOUBLE_EQ(cost.stages[1].seconds, 3 + 5 + 6);
  EXPECT_EQ(cost.tokens, 400);
  EXPECT_DOUBLE_EQ(cost.seconds, 16);
  EXPECT_DOUBLE_EQ(cost.repeated_seconds, 4);
}

TEST(Cost, NothingTrainedCostsNothing) {
  TestFolder folder;
  EXPECT_EQ(TrainingCost(folder.path()).tokens, 0);
  EXPECT_TRUE(TrainingCost(folder.path()).stages.empty());
  EXPECT_GT(PeakResidentBytes(), 1e6);
}

}  // namespace
}  // namespace tandem
