#include "worker/model/llama.h"

#include <ATen/ops/abs.h>
#include <gtest/gtest.h>

#include "tests/unit/train/tiny_model.h"
#include "worker/model/lora_projection.h"

namespace tandem::testing {
namespace {

TEST(Llama, GivesEveryTensorBackByItsName) {
  const auto model = TinyModel();
  int64_t number = 0;
  for (const TensorView& view : ExpectedTensors(TinyConfig())) {
    const at::Tensor weight = model->Weight(view.name);
    EXPECT_EQ(weight.sizes(), at::IntArrayRef(view.shape)) << view.name;
    at::Tensor wanted = RandomTensor(
        view.shape,
        view.shape.size() == 1 ? 0.2 : 2.0 / std::sqrt(static_cast<double>(view.shape.back())),
        ++number);
    if (view.shape.size() == 1) wanted.add_(1.0);
    EXPECT_TRUE(weight.equal(wanted)) << view.name;
  }
  EXPECT_THROW(model->Weight("model.layers.2.self_attn.q_proj.weight"), c10::Error);
}

TEST(Llama, LoadingADirectoryThatIsNotThereIsAStatus) {
  EXPECT_FALSE(Llama::Load("/nonexistent/model").ok());
}

TEST(Projection, MergedLoraIsTheSumOfBothProducts) {
  const auto model = TinyModel();
  const Parameters parameters(TinyConfig(), TinyParameterOptions());
  Disturb(parameters);
  const LayerParameters& layer = parameters.layer(1);
  const at::Tensor x = RandomTensor({5, 32}, 1.0, 3);
  const LoraProjection qkv = QkvProjection(TinyConfig(), model->layer(1), &layer);
  const at::Tensor k = qkv.Apply(x).narrow(1, 32, 16);
  const at::Tensor wanted = x.matmul(model->Weight("model.layers.1.self_attn.k_proj.weight").t())
                                .add(x.matmul(layer.k.a.t()).matmul(layer.k.b.t()), 2.0);
  EXPECT_LT(k.sub(wanted).abs().max().item<double>(), 1e-5);
  const LoraProjection base = QkvProjection(TinyConfig(), model->layer(1), nullptr);
  EXPECT_TRUE(base.weight().is_same(model->layer(1).qkv)) << "no copy of the base";
}

TEST(Parameters, StartAsTheMethodSays) {
  const Parameters parameters(TinyConfig(), TinyParameterOptions());
  EXPECT_EQ(parameters.tensors().size(), 2U * (3 + 8));
  EXPECT_NEAR(parameters.layer(0).window_factor.select(0, 0).item<double>(), -2.1972245773, 1e-6);
  EXPECT_NEAR(parameters.Gamma(1).select(0, 3).item<double>(), 0.1, 1e-6);
  EXPECT_EQ(parameters.lora_scale(), 2.0);
  EXPECT_EQ(parameters.layer(0).feature_map_q.sum().item<double>(), 32.0);  // 4 heads of eye(8)
  ParameterOptions plain;
  plain.mixing_factor = "exp";
  const Parameters without_lora(TinyConfig(), plain);
  EXPECT_EQ(without_lora.tensors().size(), 6U);
  EXPECT_FALSE(without_lora.layer(0).q.defined());
  EXPECT_NEAR(without_lora.Gamma(0).select(0, 0).item<double>(), 0.1, 1e-6);
}

}  // namespace
}  // namespace tandem::testing
