// The same model on the CPU and on a GPU: losses, gradients and steps must agree. Skips itself,
// with the reason, on a machine without a GPU.
//
//   what                                              bound              reason
//   fp32 base: losses                                 1e-4 relative      other order of sums
//   fp32 base: gradients, by norm                     1e-3 relative      the same, through backward
//   fp32 base: parameters after 3 steps, by norm      1e-3 relative      Adam divides by small
//   numbers bf16 base: losses                                 5e-2 relative      operands of 8
//   bits, TF32
#include <gtest/gtest.h>

#include <cmath>

#include "base/files.h"
#include "tests/unit/train/tiny_model.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/comm/collective.h"
#include "worker/model/device.h"
#include "worker/model/evaluation_forward.h"
#include "worker/model/induction_score.h"
#include "worker/train/attention_transfer.h"
#include "worker/train/finetune.h"
#include "worker/train/gradient_sum.h"
#include "worker/train/lora_start.h"

namespace tandem {
namespace {

constexpr double kLossBound = 1e-4, kGradientBound = 1e-3, kStepBound = 1e-3, kNarrowBound = 5e-2;
constexpr int64_t kBatch = 3, kTokens = 40, kWindow = 6;

// CUDA is opened before the first test touches a tensor: ATen decides once whether it is there.
const Result<ComputeDevice>& Wide() {
  static const Result<ComputeDevice> opened = OpenDevice("cuda", "float32", 0);
  return opened;
}
[[maybe_unused]] const bool kOpened = Wide().ok();

// One model and its parameters.
struct Side {
  explicit Side(const ComputeDevice& device)
      : model(testing::TinyModel(device)),
        parameters(testing::TinyConfig(), testing::TinyParameterOptions(), device.device) {
    const Parameters start(testing::TinyConfig(), testing::TinyParameterOptions());
    testing::Disturb(start);
    for (const auto& [name, tensor] : start.tensors()) {
      parameters.tensors().at(name).copy_(tensor);
    }
  }
  std::unique_ptr<Llama> model;
  Parameters parameters;
  std::unique_ptr<Collective> collective = MakeSoloCollective();
};

class Gpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!Wide().ok()) GTEST_SKIP() << Wide().status().message();
  }
  StepBatch Batch(int64_t number = 1) const {
    StepBatch batch;
    batch.ids_BT = testing::RandomIds(kBatch, kTokens, 64, number);
    return batch;
  }
};

// ||a - b|| / ||b||; NaN is infinite.
double Distance(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.cpu().to(at::kDouble), y = b.cpu().to(at::kDouble);
  const double size = y.norm().item<double>();
  const double value = x.sub(y).norm().item<double>() / std::max(size, 1e-12);
  return std::isfinite(value) ? value : INFINITY;
}

void ExpectNear(const std::map<std::string, at::Tensor>& gpu,
                const std::map<std::string, at::Tensor>& cpu, double bound) {
  ASSERT_EQ(gpu.size(), cpu.size());
  for (const auto& [name, tensor] : gpu) {
    EXPECT_LT(Distance(tensor, cpu.at(name)), bound) << name;
  }
}

AttentionTransferOptions TransferOptions(const std::string& objective) {
  AttentionTransferOptions options;
  options.objective = objective;
  options.mixture = {.weights = 1, .outputs = 0.5, .hybrid_outputs = 0.25};
  options.attention.window = kWindow;
  options.schedule = {.peak = 1e-2, .steps = 3, .constant = true};
  return options;
}

FinetuneOptions FinetuneOptionsOf(const std::string& mode, double dropout) {
  FinetuneOptions options;
  options.mode = mode;
  options.attention.window = kWindow;
  options.schedule = {.peak = 1e-3, .steps = 3, .constant = true};
  options.train_maps = true;
  if (dropout > 0) options.dropout = {{dropout}, "row", 3};
  return options;
}

TEST_F(Gpu, TransferHasTheSameLossesAndGradients) {
  for (const char* objective :
       {"weights", "outputs", "hybrid_outputs", "hybrid_weights", "mixture"}) {
    const Side cpu({}), gpu(*Wide());
    std::map<std::string, at::Tensor> g_cpu, g_gpu;
    AttentionTransfer on_cpu(*cpu.model, cpu.parameters, *cpu.collective,
                             TransferOptions(objective));
    AttentionTransfer on_gpu(*gpu.model, gpu.parameters, *gpu.collective,
                             TransferOptions(objective));
    const auto a = on_cpu.LossesAndGradients(Batch(), g_cpu);
    const auto b = on_gpu.LossesAndGradients(Batch(), g_gpu);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(b[i] / a[i], 1, kLossBound) << objective;
    EXPECT_TRUE(g_gpu.begin()->second.is_cuda());
    ExpectNear(g_gpu, g_cpu, kGradientBound);
    EXPECT_NEAR(GradientNorm(g_gpu) / GradientNorm(g_cpu), 1, kGradientBound);
  }
}

TEST_F(Gpu, FinetuneHasTheSameLossAndGradients) {
  for (const char* mode : {"hybrid", "linear_only"}) {
    const Side cpu({}), gpu(*Wide());
    GradientMap g_cpu, g_gpu;
    Finetune on_cpu(*cpu.model, cpu.parameters, *cpu.collective, FinetuneOptionsOf(mode, 0));
    Finetune on_gpu(*gpu.model, gpu.parameters, *gpu.collective, FinetuneOptionsOf(mode, 0));
    // Some rows without a window, in one batch.
    const auto rule = [](int64_t sample, int64_t) { return sample == 1; };
    const double a = on_cpu.LossAndGradients(Batch(), rule, g_cpu);
    const double b = on_gpu.LossAndGradients(Batch(), rule, g_gpu);
    EXPECT_NEAR(b / a, 1, kLossBound) << mode;
    ExpectNear(g_gpu, g_cpu, kGradientBound);
  }
}

// Distillation reads the base a second time; documents and masks pick rows on the device.
TEST_F(Gpu, DistillationDocumentsAndMaskedLabelsHaveTheSameLossAndGradients) {
  StepBatch batch = Batch();
  batch.label_mask_BT = batch.ids_BT.remainder(3).ne(0).to(at::kByte);
  batch.document_starts = {{7, 20}, {}, {33}};
  const auto never = [](int64_t, int64_t) { return false; };
  for (const char* objective : {"next_token", "distill", "mixture"}) {
    const Side cpu({}), gpu(*Wide());
    GradientMap g_cpu, g_gpu;
    FinetuneOptions options = FinetuneOptionsOf("hybrid", 0);
    options.objective = objective;
    Finetune on_cpu(*cpu.model, cpu.parameters, *cpu.collective, options);
    Finetune on_gpu(*gpu.model, gpu.parameters, *gpu.collective, options);
    const double a = on_cpu.LossAndGradients(batch, never, g_cpu);
    const double b = on_gpu.LossAndGradients(batch, never, g_gpu);
    EXPECT_NEAR(b / a, 1, kLossBound) << objective;
    ExpectNear(g_gpu, g_cpu, kGradientBound);
  }
}

TEST_F(Gpu, InductionScoresAreTheSame) {
  const Side cpu({}), gpu(*Wide());
  const at::Tensor ids = testing::RandomIds(2, 30, 64, 6);
  const InductionScoreTable a = InductionScores(*cpu.model, ids),
                            b = InductionScores(*gpu.model, ids);
  ASSERT_EQ(a.size(), b.size());
  for (size_t layer = 0; layer < a.size(); ++layer) {
    for (size_t group = 0; group < a[layer].size(); ++group) {
      EXPECT_NEAR(b[layer][group] / a[layer][group], 1, kLossBound) << layer << "." << group;
    }
  }
}

TEST_F(Gpu, EveryComponentModeHasTheSameLosses) {
  const Side cpu({}), gpu(*Wide());
  for (const char* name :
       {"softmax", "hybrid", "window_only", "linear_only", "sinks_only", "none"}) {
    EvaluationOptions options;
    options.mode = ComponentModeFromName(name).value();
    options.attention.window = kWindow;
    options.evaluate_sinks = 3;
    options.predictions = true;
    const at::Tensor ids = Batch(2).ids_BT;
    const EvaluationResult a = EvaluateSequences(*cpu.model, cpu.parameters, ids, options);
    const EvaluationResult b = EvaluateSequences(*gpu.model, gpu.parameters, ids, options);
    EXPECT_TRUE(b.losses.device().is_cpu());
    EXPECT_LT(Distance(b.losses, a.losses), kLossBound) << name;
    EXPECT_EQ(a.predicted_BT.sizes(), b.predicted_BT.sizes());
  }
}

// Token by token where the cache is: the recurrent form on the device.
TEST_F(Gpu, RetainedGroupsAndTheSparseCacheHaveTheSameLosses) {
  const Side cpu({}), gpu(*Wide());
  const at::Tensor ids = Batch(6).ids_BT;
  for (const int64_t cache_size : {0, 3}) {
    EvaluationOptions options;
    options.attention.window = kWindow;
    options.attention.cache_size = cache_size;
    options.attention.retained = {{}, {0}};  // group 0 of layer 1
    const auto losses = [&](const Side& side) {
      return EvaluateSequences(*side.model, side.parameters, ids, options).losses;
    };
    EXPECT_LT(Distance(losses(gpu), losses(cpu)), kLossBound) << "cache " << cache_size;
  }
}

// A stage's three steps on both sides, then everything a checkpoint holds.
template <typename Stage, typename Options>
void CompareSteps(const Options& options, const std::vector<StepBatch>& batches) {
  const Side cpu({}), gpu(*Wide());
  Stage on_cpu(*cpu.model, cpu.parameters, *cpu.collective, options);
  Stage on_gpu(*gpu.model, gpu.parameters, *gpu.collective, options);
  for (size_t step = 0; step < batches.size(); ++step) {
    const auto number = static_cast<int64_t>(step);
    const double a = on_cpu.Step(number, batches[step]).loss;
    EXPECT_NEAR(on_gpu.Step(number, batches[step]).loss / a, 1, kStepBound) << "step " << step;
  }
  ExpectNear(gpu.parameters.tensors(), cpu.parameters.tensors(), kStepBound);
  EXPECT_EQ(on_gpu.State().size(), on_cpu.State().size());
}

TEST_F(Gpu, ThreeStepsOfEveryStageGoTheSameWay) {
  const std::vector<StepBatch> batches = {Batch(3), Batch(4), Batch(5)};
  for (const char* objective : {"weights", "hybrid_outputs"}) {
    SCOPED_TRACE(objective);
    CompareSteps<AttentionTransfer>(TransferOptions(objective), batches);
  }
  for (const char* mode : {"hybrid", "linear_only"}) {
    SCOPED_TRACE(mode);
    CompareSteps<Finetune>(FinetuneOptionsOf(mode, 0), batches);
  }
  SCOPED_TRACE("scheduled window dropout");
  CompareSteps<Finetune>(FinetuneOptionsOf("hybrid", 0.5), batches);
}

TEST_F(Gpu, LoraStartsAlikeEverywhere) {
  const Side cpu({}), gpu(*Wide());
  DrawLoraStart(5, cpu.parameters);
  DrawLoraStart(5, gpu.parameters);
  for (const auto& [name, tensor] : gpu.parameters.tensors()) {
    EXPECT_TRUE(tensor.cpu().equal(cpu.parameters.tensors().at(name))) << name;
  }
}

TEST_F(Gpu, ACheckpointOfTheGpuIsReadOnTheCpuAndBack) {
  const Side gpu(*Wide());
  const std::string folder = ::testing::TempDir() + "/gpu_checkpoint";
  ASSERT_TRUE(RemoveTree(folder).ok());
  ASSERT_TRUE(MakeFolders(folder).ok());
  CheckpointTarget target;
  target.job_folder = folder;
  target.job_uid = "gpu";
  target.epoch = 1;
  const auto saved = SaveCheckpoint(target, {0, "finetune", 1, 1}, gpu.parameters.tensors());
  ASSERT_TRUE(saved.ok()) << saved.status().ToString();
  const auto loaded = LoadCheckpoint(saved->folder);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  const Side other(*Wide());
  for (const auto& [name, tensor] : other.parameters.tensors()) tensor.zero_();
  ASSERT_TRUE(RestoreTensors(loaded->tensors, other.parameters.tensors()).ok());
  for (const auto& [name, tensor] : other.parameters.tensors()) {
    EXPECT_TRUE(tensor.equal(gpu.parameters.tensors().at(name))) << name;
  }
}

TEST_F(Gpu, ABf16BaseStaysNearTheFloatOne) {
  const auto narrow = OpenDevice("cuda", "bfloat16", 0);
  ASSERT_TRUE(narrow.ok());
  const Side cpu({}), gpu(*narrow);
  GradientMap g_cpu, g_gpu;
  Finetune on_cpu(*cpu.model, cpu.parameters, *cpu.collective, FinetuneOptionsOf("hybrid", 0));
  Finetune on_gpu(*gpu.model, gpu.parameters, *gpu.collective, FinetuneOptionsOf("hybrid", 0));
  const auto never = [](int64_t, int64_t) { return false; };
  const double a = on_cpu.LossAndGradients(Batch(), never, g_cpu);
  const double b = on_gpu.LossAndGradients(Batch(), never, g_gpu);
  EXPECT_NEAR(b / a, 1, kNarrowBound);
  EXPECT_NE(a, b);
  for (const auto& [name, gradient] : g_gpu) EXPECT_EQ(gradient.scalar_type(), at::kFloat) << name;
  EXPECT_GT(PeakDeviceBytes(*narrow), 0);
  // The other tests want plain fp32 products.
  ASSERT_TRUE(OpenDevice("cuda", "float32", 0).ok());
}

}  // namespace
}  // namespace tandem
