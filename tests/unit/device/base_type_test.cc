// A bf16 base, computed on the CPU as the GPU computes it; and what a device refuses.
#include <ATen/ops/empty_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/train/tiny_model.h"
#include "worker/model/base_product.h"
#include "worker/model/device.h"
#include "worker/model/next_token_loss.h"
#include "worker/train/finetune.h"

namespace tandem {
namespace {

using testing::RandomTensor;

ComputeDevice NarrowBase() {
  ComputeDevice device;
  device.base_type = at::kBFloat16;
  return device;
}

TEST(BaseProduct, RoundsTheOperandsAndNothingElse) {
  const at::Tensor x = RandomTensor({5, 24}, 1, 1), w = RandomTensor({7, 24}, 1, 2);
  const at::Tensor w_narrow = w.to(at::kBFloat16);
  const at::Tensor wanted =
      x.to(at::kBFloat16).to(at::kDouble).matmul(w_narrow.to(at::kDouble).t());
  const at::Tensor got = TimesTransposed(x, w_narrow);
  EXPECT_EQ(got.scalar_type(), at::kFloat);
  EXPECT_LT(got.sub(wanted).abs().max().item<double>(), 1e-6);
  const at::Tensor sum = RandomTensor({5, 7}, 1, 3);
  EXPECT_LT(AddTimesTransposed(sum, x, w_narrow).sub(wanted).sub(sum).abs().max().item<double>(),
            1e-6);
  const at::Tensor dy = RandomTensor({5, 7}, 1, 4), out = at::empty_like(x);
  TimesInto(out, dy, w_narrow);
  EXPECT_TRUE(out.equal(Times(dy, w_narrow)));
}

TEST(BaseType, ABf16BaseStaysNearTheFloatOne) {
  const auto wide = testing::TinyModel(), narrow = testing::TinyModel(NarrowBase());
  EXPECT_EQ(narrow->layer(0).qkv.scalar_type(), at::kBFloat16);
  EXPECT_EQ(narrow->layer(0).input_norm.scalar_type(), at::kFloat);
  const at::Tensor ids = testing::RandomIds(2, 20, 64, 1);
  const auto losses = [&](const Llama& model) {
    at::Tensor x = model.Embed(ids);
    EXPECT_EQ(x.scalar_type(), at::kFloat);
    for (int64_t i = 0; i < model.config().num_layers; ++i)
      x = model.FinishLayer(x, {}, i, nullptr);
    return ComputeNextTokenLosses(model, x, ids, false).losses_BT1;
  };
  const at::Tensor a = losses(*wide), b = losses(*narrow);
  const double difference = a.sub(b).abs().max().item<double>();
  EXPECT_LT(difference, 0.1);
  EXPECT_GT(difference, 0);
}

// The loss of a tiny conversion whose LoRA is `size` times a random one.
struct Finetuned {
  double loss = 0;
  GradientMap gradients;
};
Finetuned FinetuneOnce(const Llama& model, double size) {
  const Parameters parameters(testing::TinyConfig(), testing::TinyParameterOptions());
  testing::Disturb(parameters);
  for (const auto& [name, tensor] : parameters.tensors())
    if (name.ends_with("lora_B")) tensor.mul_(size);
  FinetuneOptions options;
  options.attention.window = 4;
  options.train_maps = options.train_factor = true;
  const auto solo = MakeSoloCollective();
  Finetune stage(model, parameters, *solo, options);
  Finetuned result;
  result.loss = stage.LossAndGradients(
      {testing::RandomIds(3, 20, 64, 1), 0}, [](int64_t, int64_t) { return false; },
      result.gradients);
  return result;
}

// Added to a bf16 weight, an update of 1e-4 of it rounds away, and training stood still at first.
TEST(BaseType, LoraBelowTheRoundingOfABf16WeightCounts) {
  const auto wide = testing::TinyModel(), narrow = testing::TinyModel(NarrowBase());
  const auto effect = [](const Llama& model) {
    return FinetuneOnce(model, 2e-3).loss - FinetuneOnce(model, 0).loss;
  };
  const double wanted = effect(*wide);
  EXPECT_GT(std::abs(wanted), 1e-4);
  EXPECT_NEAR(effect(*narrow), wanted, 0.3 * std::abs(wanted));
}

TEST(BaseType, GradientsOfABf16BaseStayNearTheFloatOnes) {
  const GradientMap wide = FinetuneOnce(*testing::TinyModel(), 1).gradients;
  const GradientMap narrow = FinetuneOnce(*testing::TinyModel(NarrowBase()), 1).gradients;
  for (const auto& [name, gradient] : wide) {
    const double distance = narrow.at(name).sub(gradient).norm().item<double>();
    EXPECT_LT(distance, 0.1 * gradient.norm().item<double>()) << name;  // 2^-8 per operand
  }
}

TEST(OpenDevice, RefusesBf16OnTheCpu) {
  EXPECT_TRUE(OpenDevice("cpu", "float32", 0).ok());
  const Status status = OpenDevice("cpu", "bfloat16", 0).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("model.dtype"), std::string::npos) << status.message();
}

TEST(OpenDevice, SaysWhyThereIsNoCuda) {
  const auto opened = OpenDevice("cuda", "bfloat16", 0);
  if (opened.ok()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(opened.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(opened.status().message().find("parallelism.device: cpu"), std::string::npos)
      << opened.status().message();
}

}  // namespace
}  // namespace tandem
