// The estimate before the first step: every stage has its figures, nothing is trained by it, and a
// second attempt keeps what the first one said.
#include "worker/rank/cost_estimate.h"

#include <gtest/gtest.h>

#include <memory>

#include "base/files.h"
#include "tests/unit/evaluate/tiny_model.h"
#include "tests/unit/model_files/folder.h"
#include "worker/evaluate/cost.h"
#include "worker/evaluate/cost_model.h"
#include "worker/export/export_estimate.h"
#include "worker/rank/stage_factory.h"

namespace tandem {
namespace {

class CostEstimateTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteTinyModel(folder_.File("model"), true).ok());
    ASSERT_TRUE(MakeFolders(folder_.File("tokens")).ok());
    ASSERT_TRUE(WriteTinyText(folder_.File("tokens/validation"), 4, 500).ok());
    model_ = Llama::Load(folder_.File("model")).value();
    plan_.model = folder_.File("model");
    plan_.job_folder = folder_.File("job");
    plan_.data.tokens = folder_.File("tokens");
    plan_.data.sequence_length = 32;
    plan_.attention.window_size = 8;
    plan_.attention.feature_dim = 16;
    plan_.evaluate.sequences = 8;
    StagePlan transfer, finetune;
    transfer.kind = "attention_transfer";
    transfer.steps = 5;
    transfer.batch_size = 4;
    finetune.kind = "finetune";
    finetune.steps = 7;
    finetune.batch_size = 2;
    finetune.train_maps = finetune.train_factor = true;
    finetune.lora_targets = {"q_proj", "o_proj"};
    finetune.ssd_schedule = {0.5};
    plan_.stages = {transfer, finetune};
    parameters_ = std::make_unique<Parameters>(model_->config(), ParameterOptionsOf(plan_));
    DisturbParameters(*parameters_);
  }
  std::map<std::string, at::Tensor> Copies() const {
    std::map<std::string, at::Tensor> copies;
    for (const auto& [name, tensor] : parameters_->tensors()) copies[name] = tensor.clone();
    return copies;
  }

  TestFolder folder_;
  Plan plan_;
  std::unique_ptr<Llama> model_;
  std::unique_ptr<Parameters> parameters_;
};

TEST_F(CostEstimateTest, EveryStageIsEstimatedAndNothingIsTrained) {
  const auto before = Copies();
  EstimateCost({plan_, *model_, *parameters_, 3e8}, *MakeSoloCollective(), Clock::System());
  for (const auto& [name, tensor] : parameters_->tensors()) {
    EXPECT_TRUE(tensor.equal(before.at(name))) << name;
  }
  const Estimate estimate = ReadEstimate(plan_.job_folder);
  ASSERT_EQ(estimate.stages.size(), 4u);
  EXPECT_EQ(estimate.stages[0].stage, "attention_transfer");
  EXPECT_EQ(estimate.stages[0].tokens, 5 * 4 * 32);
  EXPECT_EQ(estimate.stages[1].steps, 7);
  EXPECT_EQ(estimate.stages[1].tokens, 7 * 2 * 32);
  EXPECT_EQ(estimate.stages[2].stage, "evaluate");
  EXPECT_EQ(estimate.stages[2].stage_index, 2);
  EXPECT_EQ(estimate.stages[2].tokens, 8 * 8 * 32) << "eight passes over eight sequences";
  const CostShape shape{model_->config(), plan_.attention, 32};
  EXPECT_DOUBLE_EQ(estimate.stages[1].flop_per_token, StageFlops(shape, plan_.stages[1]));
  EXPECT_EQ(estimate.stages[3].stage, "export");
  EXPECT_EQ(estimate.stages[3].stage_index, 3);
  for (const StageEstimate& stage : estimate.stages) {
    const double slowest = stage.stage == "export" ? -1 : 1e5;  // an export counts no operations
    EXPECT_GT(stage.flop_per_second, slowest) << stage.stage;
    EXPECT_GT(stage.seconds(), 0) << stage.stage;
    EXPECT_GT(stage.memory_bytes, 3e8) << stage.stage << ": the program is part of it";
  }
}

// What the preparation expected is the plan's first row; the export is rehearsed without a trace.
TEST_F(CostEstimateTest, PreparationAndExportHaveTheirRows) {
  ASSERT_TRUE(MakeFolders(folder_.File("job/attempts/1")).ok());
  ASSERT_TRUE(WriteFileDurably(folder_.File("job/attempts/1/prepare_cost.json"),
                               R"({"version":1,"cached":false,"tokens":900,"seconds":2.5,)"
                               R"("peak_memory_bytes":4e7,)"
                               R"("estimate":{"tokens":1000,"seconds":2,"memory_bytes":5e7}})")
                  .ok());
  EstimateCost({plan_, *model_, *parameters_, 0}, *MakeSoloCollective(), Clock::System());
  const Estimate estimate = ReadEstimate(plan_.job_folder);
  ASSERT_EQ(estimate.stages.size(), 5u);
  EXPECT_EQ(estimate.stages[0].stage, "prepare");
  EXPECT_EQ(estimate.stages[0].stage_index, kPrepareIndex);
  EXPECT_EQ(estimate.stages[0].seconds(), 2);
  EXPECT_EQ(estimate.stages[0].memory_bytes, 5e7);
  EXPECT_EQ(ListFolder(folder_.File("job/artifacts")).value(),
            std::vector<std::string>{"estimate.json"});
  const double bytes = ExportBytes(plan_, *model_, *parameters_);
  EXPECT_GT(estimate.stages[4].memory_bytes, 2 * bytes) << "the model and what was read back";
  plan_.export_dtype = "bfloat16";
  EXPECT_LT(ExportBytes(plan_, *model_, *parameters_), bytes);
}

TEST_F(CostEstimateTest, ADiagnosisExportsNothing) {
  plan_.recipe = "diagnose";
  EstimateCost({plan_, *model_, *parameters_, 0}, *MakeSoloCollective(), Clock::System());
  EXPECT_EQ(ReadEstimate(plan_.job_folder).stages.back().stage, "evaluate");
}

TEST_F(CostEstimateTest, ASecondAttemptKeepsWhatTheFirstOneSaid) {
  const auto solo = MakeSoloCollective();
  EstimateCost({plan_, *model_, *parameters_, 3e8}, *solo, Clock::System());
  const std::string said = ReadFile(EstimatePath(plan_.job_folder)).value();
  EstimateCost({plan_, *model_, *parameters_, 9e8}, *solo, Clock::System());
  EXPECT_EQ(ReadFile(EstimatePath(plan_.job_folder)).value(), said);
}

}  // namespace
}  // namespace tandem
