#include "worker/evaluate/cost.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "tests/unit/model_files/folder.h"
#include "worker/evaluate/peak_memory.h"

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
  EXPECT_EQ(cost.stages[1].steps, 3);
}

// The estimate is what was said at first; the actual of two attempts is compared with it once.
TEST(Cost, AnEstimateSurvivesAResume) {
  TestFolder folder;
  const Estimate said{2, "cpu", {{"finetune", 0, 3, 300, 1e6, 1e7, 5e8}}};
  ASSERT_TRUE(WriteEstimate(folder.path(), said).ok());
  for (const std::string epoch : {"1", "2"}) {
    ASSERT_TRUE(MakeFolders(folder.File("attempts/" + epoch)).ok());
    const std::string lines = epoch == "1"
                                  ? Line("finetune", 0, 1, 10) + Line("finetune", 0, 2, 10)
                                  : Line("finetune", 0, 2, 11) + Line("finetune", 0, 3, 11);
    ASSERT_TRUE(WriteFileDurably(folder.File("attempts/" + epoch + "/metrics.jsonl"), lines).ok());
  }
  Cost cost = TrainingCost(folder.path());
  AddEstimates(ReadEstimate(folder.path()), &cost);
  ASSERT_EQ(cost.stages.size(), 1u);
  EXPECT_DOUBLE_EQ(cost.stages[0].seconds, 32) << "step 2 once";
  ASSERT_TRUE(cost.stages[0].estimate.has_value());
  EXPECT_DOUBLE_EQ(cost.stages[0].estimate->seconds(), 30);
  EXPECT_DOUBLE_EQ(cost.stages[0].estimate->memory_bytes, 5e8);
  EXPECT_NEAR(*RelativeError(32, 30), 0.0667, 1e-4);
  EXPECT_FALSE(RelativeError(0, 30).has_value());
  EXPECT_FALSE(RelativeError(32, 0).has_value());
}

TEST(Cost, MemoryAndReuseAreReadFromTheLines) {
  TestFolder folder;
  ASSERT_TRUE(MakeFolders(folder.File("attempts/1")).ok());
  const std::string head = "{\"stage\":\"finetune\",\"stage_index\":0,\"step\":";
  const std::string tail = ",\"loss\":1,\"tokens\":1,\"seconds\":1";
  ASSERT_TRUE(WriteFileDurably(folder.File("attempts/1/metrics.jsonl"),
                               head + "1" + tail + ",\"peak_memory_bytes\":7}\n" + head + "2" +
                                   tail + ",\"peak_memory_bytes\":5,\"reused\":true}\n")
                  .ok());
  const Cost cost = TrainingCost(folder.path());
  ASSERT_EQ(cost.stages.size(), 1u);
  EXPECT_EQ(cost.stages[0].peak_memory_bytes, 7);
  EXPECT_TRUE(cost.stages[0].reused);
}

// A second attempt finds the tokens in the cache: what they cost is what the first one says.
TEST(Cost, ThePreparationIsThatOfTheAttemptThatMadeTheTokens) {
  TestFolder folder;
  const auto write = [&folder](const std::string& epoch, const std::string& text) {
    ASSERT_TRUE(MakeFolders(folder.File("attempts/" + epoch)).ok());
    ASSERT_TRUE(
        WriteFileDurably(folder.File("attempts/" + epoch + "/prepare_cost.json"), text).ok());
  };
  EXPECT_FALSE(PrepareCost(folder.path()));
  write("1", "{");
  EXPECT_FALSE(PrepareCost(folder.path()));
  write("2", R"({"cached":true,"tokens":7,"seconds":0.1})");
  ASSERT_TRUE(PrepareCost(folder.path()));
  EXPECT_TRUE(PrepareCost(folder.path())->reused);
  EXPECT_FALSE(PrepareCost(folder.path())->estimate);
  write("9", R"({"cached":false,"tokens":7,"seconds":3,"peak_memory_bytes":5,)"
             R"("estimate":{"tokens":8,"seconds":4,"memory_bytes":6}})");
  write("10", R"({"cached":true,"tokens":7,"seconds":0.2})");
  const std::optional<StageCost> cost = PrepareCost(folder.path());
  ASSERT_TRUE(cost && cost->estimate);
  EXPECT_EQ(cost->seconds, 3);
  EXPECT_EQ(cost->peak_memory_bytes, 5);
  EXPECT_FALSE(cost->reused);
  EXPECT_EQ(cost->estimate->seconds(), 4);
  EXPECT_EQ(cost->estimate->tokens, 8);
}

TEST(Cost, TheExportsStandsBesideItsEstimate) {
  TestFolder folder;
  StageEstimate said;
  said.stage = "export";
  said.stage_index = 3;
  said.given_seconds = 4;
  said.memory_bytes = 2e8;
  ASSERT_TRUE(WriteEstimate(folder.path(), {1, "cpu", {said}}).ok());
  StageCost cost;
  cost.stage = "export";
  cost.stage_index = 3;
  cost.seconds = 5;
  cost.peak_memory_bytes = 1e8;
  ASSERT_TRUE(WriteExportCost(folder.path(), cost).ok());
  const auto told = nlohmann::json::parse(*ReadFile(folder.File("artifacts/export_cost.json")));
  EXPECT_EQ(told["estimate"]["seconds"], 4);
  EXPECT_EQ(told["error"]["seconds"], 0.25);
  EXPECT_EQ(told["error"]["memory_bytes"], -0.5);
  EXPECT_FALSE(told.contains("flop_per_second"));
}

TEST(Cost, ADamagedEstimateIsNone) {
  TestFolder folder;
  EXPECT_TRUE(ReadEstimate(folder.path()).stages.empty());
  ASSERT_TRUE(MakeFolders(folder.File("artifacts")).ok());
  for (const char* text : {"", "{", "[]", "{\"stages\": 3}", "{\"stages\": [3]}"}) {
    ASSERT_TRUE(WriteFileDurably(EstimatePath(folder.path()), text).ok());
    EXPECT_TRUE(ReadEstimate(folder.path()).stages.empty()) << text;
  }
}

// A stage's peak does not remember what was freed before it; the process's does.
TEST(PeakMemory, AStageStartsAnew) {
  constexpr size_t kBytes = size_t{64} << 20;
  PeakMemory memory;
  memory.StartStage();
  const double before = memory.OfStage();
  {
    std::vector<char> block(kBytes);
    for (size_t i = 0; i < kBytes; i += 4096) block[i] = static_cast<char>(i);
    EXPECT_GT(memory.OfStage(), before + 0.9 * kBytes);
  }
  const double whole = memory.OfProcess();
  memory.StartStage();
  EXPECT_LT(memory.OfStage(), whole - 0.9 * kBytes);
  EXPECT_EQ(memory.OfProcess(), whole);
  EXPECT_GT(ResidentBytes(), 1e6);
}

TEST(Cost, NothingTrainedCostsNothing) {
  TestFolder folder;
  EXPECT_EQ(TrainingCost(folder.path()).tokens, 0);
  EXPECT_TRUE(TrainingCost(folder.path()).stages.empty());
}

}  // namespace
}  // namespace tandem
