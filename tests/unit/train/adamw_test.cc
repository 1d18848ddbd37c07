#include "worker/train/adamw.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace tandem {
namespace {

// torch.optim.AdamW's recurrence in double.
struct Reference {
  double p, m = 0, v = 0;
  int64_t t = 0;
  void Step(double g, double lr) {
    ++t;
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    const double m_hat = m / (1 - std::pow(0.9, t)), v_hat = v / (1 - std::pow(0.999, t));
    p -= lr * m_hat / (std::sqrt(v_hat) + 1e-8);
  }
};

TEST(AdamW, FollowsTheRecurrence) {
  const at::Tensor p = at::full({3}, 0.5);
  AdamW optimiser({{"p", p}});
  Reference reference{0.5};
  for (int step = 0; step < 50; ++step) {
    const double g = std::sin(0.7 * step) * 1e-3, lr = 1e-2 / (1 + step);
    optimiser.Step({{"p", at::full({3}, g)}}, lr);
    reference.Step(g, lr);
  }
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(p.data_ptr<float>()[i], reference.p, 1e-6);
  EXPECT_GT(std::abs(reference.p - 0.5), 1e-3);
}

TEST(AdamW, ATensorWithoutGradientIsLeftAloneAndDoesNotCount) {
  const at::Tensor a = at::full({1}, 1.0), b = at::full({1}, 1.0);
  AdamW optimiser({{"a", a}, {"b", b}});
  optimiser.Step({{"a", at::full({1}, 1.0)}}, 0.1);
  EXPECT_EQ(b.item<float>(), 1.0f);
  optimiser.Step({{"a", at::full({1}, 1.0)}, {"b", at::full({1}, 3.0)}}, 0.1);
  // The first update of Adam moves by the learning rate, whatever the gradient's size.
  EXPECT_NEAR(b.item<float>(), 0.9f, 1e-6);
  std::map<std::string, at::Tensor> state;
  optimiser.AddState(state);
  EXPECT_EQ(state.at("adam.t.a").item<int64_t>(), 2);
  EXPECT_EQ(state.at("adam.t.b").item<int64_t>(), 1);
  EXPECT_EQ(state.size(), 6U);
}

TEST(AdamW, AWrongShapeIsRefused) {
  AdamW optimiser({{"a", at::full({2}, 1.0)}});
  EXPECT_THROW(optimiser.Step({{"a", at::full({3}, 1.0)}}, 0.1), c10::Error);
}

}  // namespace
}  // namespace tandem
