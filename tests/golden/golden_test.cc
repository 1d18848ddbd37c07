// Golden losses: the first steps of every kind of stage on a tiny model with a fixed seed.
//
// They move only by intent: TANDEM_REWRITE=1 writes the files anew, in a commit that explains it.
// One tolerance, 1e-4 relative: CPUs round differently, and Adam amplifies rounding in small
// gradients.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "base/files.h"
#include "tests/unit/train/tiny_model.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/finetune.h"
#include "worker/train/lora_start.h"

namespace tandem::testing {
namespace {

constexpr double kTolerance = 1e-4;
constexpr int64_t kSteps = 12;

std::vector<double> Losses(TrainingStage& stage) {
  std::vector<double> losses;
  for (int64_t step = 0; step < kSteps; ++step) {
    losses.push_back(stage.Step(step, {RandomIds(2, 48, 64, step), 0}).loss);
  }
  return losses;
}

void CompareWithFile(const std::string& name, const std::vector<double>& losses) {
  const std::string path = std::string(TANDEM_SOURCE_DIR) + "/tests/golden/" + name + ".txt";
  if (std::getenv("TANDEM_REWRITE") != nullptr) {
    std::string text;
    char line[64];
    for (size_t i = 0; i < losses.size(); ++i) {
      std::snprintf(line, sizeof(line), "%zu %.9g\n", i, losses[i]);
      text += line;
    }
    ASSERT_TRUE(WriteFileDurably(path, text).ok());
    return;
  }
  const auto text = ReadFile(path);
  ASSERT_TRUE(text.ok()) << text.status().ToString();
  std::istringstream lines(*text);
  size_t step = 0, read = 0;
  for (double wanted = 0; lines >> step >> wanted; ++read) {
    ASSERT_LT(step, losses.size());
    EXPECT_NEAR(losses[step], wanted, kTolerance * std::abs(wanted))
        << name << ", step " << step << "; if this is meant, run with TANDEM_REWRITE=1 and explain";
  }
  EXPECT_EQ(read, losses.size());
}

class Golden : public ::testing::Test {
 protected:
  Golden() {
    at::set_num_threads(1);
    DrawLoraStart(9, parameters_);
  }

  LearningRateSchedule Schedule(double peak) const { return {peak, 3, kSteps, false}; }

  void CheckTransfer(const std::string& objective) {
    AttentionTransferOptions options;
    options.objective = objective;
    options.mixture = {.weights = 1, .outputs = 0.5, .hybrid_outputs = 2};
    options.attention.window = 8;
    options.schedule = Schedule(1e-2);
    AttentionTransfer stage(*model_, parameters_, *solo_, options);
    CompareWithFile("transfer_" + objective, Losses(stage));
  }

  void CheckFinetune(const std::string& name, const FinetuneOptions& given) {
    FinetuneOptions options = given;
    options.attention.window = 8;
    options.schedule = Schedule(1e-2);
    options.seed = 9;
    options.dropout.steps = kSteps;
    Finetune stage(*model_, parameters_, *solo_, options);
    CompareWithFile(name, Losses(stage));
  }

  std::unique_ptr<Llama> model_ = TinyModel();
  Parameters parameters_{model_->config(), TinyParameterOptions()};
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
};

TEST_F(Golden, TransferByWeights) {
  CheckTransfer("weights");
}
TEST_F(Golden, TransferByHybridOutputs) {
  CheckTransfer("hybrid_outputs");
}
TEST_F(Golden, TransferByOtherObjectives) {
  for (const char* objective : {"outputs", "hybrid_weights", "mixture"}) {
    parameters_ = Parameters(model_->config(), TinyParameterOptions());
    CheckTransfer(objective);
  }
}
TEST_F(Golden, FinetuneByDistillation) {
  FinetuneOptions options;
  options.objective = "mixture";
  CheckFinetune("finetune_distill", options);
}
TEST_F(Golden, FinetuneOfTheWindow) {
  FinetuneOptions options;
  options.mode = "window_only";
  CheckFinetune("finetune_window_only", options);
}
TEST_F(Golden, FinetuneWithTheDroppedSpanOutside) {
  FinetuneOptions options;
  options.train_maps = options.train_factor = true;
  options.dropout.schedule = {0.9, 0.5, 0.0};
  options.dropped_span = "outside";
  options.window_schedule = {2, 4, 8};
  CheckFinetune("finetune_ssd_outside", options);
}
TEST_F(Golden, FinetuneOfLora) {
  CheckFinetune("finetune_lora", {});
}
TEST_F(Golden, FinetuneOfLinearOnly) {
  FinetuneOptions options;
  options.mode = "linear_only";
  CheckFinetune("finetune_linear_only", options);
}
TEST_F(Golden, FinetuneWithWindowDropout) {
  FinetuneOptions options;
  options.train_maps = true;
  options.train_factor = true;
  options.dropout.schedule = {0.9, 0.5, 0.0};
  options.dropout.granularity = "layer";
  CheckFinetune("finetune_ssd", options);
}

}  // namespace
}  // namespace tandem::testing
