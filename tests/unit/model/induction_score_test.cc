// The induction score against the quadratic form, and the choice of groups.
#include "worker/model/induction_score.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/unit/train/tiny_model.h"
#include "worker/model/evaluation_forward.h"

namespace tandem::testing {
namespace {

TEST(InductionScore, IsTheWeightOfTheEarlierSuccessor) {
  const at::NoGradGuard no_gradients;
  const auto model = TinyModel();
  const int64_t n = 9, H = TinyConfig().num_heads, K = TinyConfig().num_kv_heads;
  const at::Tensor ids = RandomIds(3, n, TinyConfig().vocab_size, 5);
  const InductionScoreTable got = InductionScores(*model, ids);
  ASSERT_EQ(got.size(), static_cast<size_t>(TinyConfig().num_layers));

  at::Tensor x = model->Embed(at::cat({ids, ids}, 1));
  for (int64_t layer = 0; layer < TinyConfig().num_layers; ++layer) {
    const QkvTensors in = model->Qkv(x, layer, nullptr);
    const at::Tensor k = in.k.repeat_interleave(H / K, 1), v = in.v.repeat_interleave(H / K, 1);
    const at::Tensor later = at::ones({2 * n, 2 * n}, at::kBool).triu(1);
    const at::Tensor p =
        at::softmax(in.q.matmul(k.transpose(2, 3))
                        .div(std::sqrt(static_cast<double>(in.q.size(3))))
                        .masked_fill(later, -std::numeric_limits<double>::infinity()),
                    -1);
    ASSERT_EQ(got[static_cast<size_t>(layer)].size(), static_cast<size_t>(K));
    for (int64_t group = 0; group < K; ++group) {
      double best = 0;
      for (int64_t h = group * (H / K); h < (group + 1) * (H / K); ++h) {
        double sum = 0;
        for (int64_t i = 0; i + 1 < n; ++i)
          sum += p.select(1, h).select(1, n + i).select(1, i + 1).mean().item<double>();
        best = std::max(best, sum / static_cast<double>(n - 1));
      }
      EXPECT_NEAR(got[static_cast<size_t>(layer)][static_cast<size_t>(group)], best, 1e-6)
          << "layer " << layer << " group " << group;
    }
    x = model->FinishLayer(x, p.matmul(v), layer, nullptr);
  }
}

TEST(InductionScore, BestGroupsComeInOrder) {
  const InductionScoreTable scores = {{0.1, 0.4}, {0.4, 0.9}};
  using Places = std::vector<std::pair<int64_t, int64_t>>;
  EXPECT_EQ(BestGroups(scores, 0), Places{});
  EXPECT_EQ(BestGroups(scores, 2), (Places{{0, 1}, {1, 1}}));
  EXPECT_EQ(BestGroups(scores, 9), (Places{{0, 0}, {0, 1}, {1, 0}, {1, 1}}));
}

// The score reads attention; what counts is what the group does. In the example model, behind a
// window, the chosen group alone gives back how well repeated random tokens are predicted.
TEST(InductionScore, TheChosenGroupGivesBackWhatTheWindowTook) {
  const auto model = Llama::Load(std::string(TANDEM_SOURCE_DIR) + "/examples/base-4m").value();
  const int64_t n = 128;
  const at::Tensor ids = RandomIds(2, n, model->config().vocab_size, 5);
  const auto best = BestGroups(InductionScores(*model, ids), 1).front();

  ParameterOptions maps;
  maps.feature_dim = model->config().head_dim;
  const Parameters parameters(model->config(), maps);
  const auto loss = [&](ComponentMode mode, std::vector<LayerRetention> retained) {
    EvaluationOptions options;
    options.mode = mode;
    options.attention.window = 64;
    options.attention.retained = std::move(retained);
    return EvaluateSequences(*model, parameters, at::cat({ids, ids}, 1), options)
        .losses.narrow(1, n, n - 1)
        .mean()
        .item<double>();
  };
  const double base = loss(ComponentMode::kSoftmax, {});
  const double taken = loss(ComponentMode::kWindowOnly, {}) - base;
  ASSERT_GT(taken, 1);
  for (int64_t layer = 0; layer < model->config().num_layers; ++layer) {
    for (int64_t group = 0; group < model->config().num_kv_heads; ++group) {
      std::vector<LayerRetention> retained(static_cast<size_t>(layer) + 1);
      retained.back() = {group};
      const double missing = loss(ComponentMode::kWindowOnly, retained) - base;
      const bool is_chosen = std::pair(layer, group) == best;
      EXPECT_EQ(missing < 0.3 * taken, is_chosen) << layer << "." << group << " " << missing;
    }
  }
}

TEST(InductionScore, OneTokenIsRefused) {
  EXPECT_THROW(InductionScores(*TinyModel(), at::ones({2, 1}, at::kLong)), c10::Error);
}

}  // namespace
}  // namespace tandem::testing
