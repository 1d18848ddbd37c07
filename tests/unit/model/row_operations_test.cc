// Row operations against the same formulas in double, odd lengths included.
#include "worker/model/row_operations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "worker/data/philox.h"

namespace tandem {
namespace {

std::vector<float> Random(int64_t count, int64_t number, double bound = 2.0) {
  const PhiloxStream stream(3, number, RandomPurpose::kTest);
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(bound * (2 * stream.Uniform(static_cast<int64_t>(i)) - 1));
  }
  return values;
}

double LogSumExp(const float* row, int64_t V) {
  double sum = 0;
  for (int64_t i = 0; i < V; ++i) sum += std::exp(static_cast<double>(row[i]));
  return std::log(sum);
}

class RowOperations : public ::testing::TestWithParam<int64_t> {};

TEST_P(RowOperations, CrossEntropyAndItsGradient) {
  const int64_t V = GetParam(), N = 3;
  std::vector<float> logits = Random(N * V, 1, 8.0);
  const std::vector<float> start = logits;
  const std::vector<int64_t> labels = {0, V - 1, V / 2};
  std::vector<float> losses(N, NAN);
  CrossEntropyRows(logits.data(), labels.data(), losses.data(), 0.0f, 0, N, V);
  EXPECT_EQ(logits, start);  // no scale: the logits stay
  CrossEntropyRows(logits.data(), labels.data(), losses.data(), 0.5f, 0, N, V);
  for (int64_t n = 0; n < N; ++n) {
    const float* row = start.data() + n * V;
    const double lse = LogSumExp(row, V);
    const int64_t label = labels[static_cast<size_t>(n)];
    EXPECT_NEAR(losses[static_cast<size_t>(n)], lse - static_cast<double>(row[label]), 1e-5);
    for (int64_t i = 0; i < V; ++i) {
      const double p = std::exp(static_cast<double>(row[i]) - lse);
      EXPECT_NEAR(logits[static_cast<size_t>(n * V + i)], 0.5 * (p - (i == label)), 1e-6);
    }
  }
}

TEST_P(RowOperations, SwiGluAndItsGradient) {
  const int64_t I = GetParam();
  std::vector<float> gate_up = Random(2 * I, 2, 6.0), out(static_cast<size_t>(I), NAN);
  const std::vector<float> start = gate_up, d_out = Random(I, 3);
  SwiGluRows(gate_up.data(), out.data(), 0, 1, I);
  SwiGluBackwardRows(gate_up.data(), d_out.data(), 0, 1, I);
  for (size_t i = 0; i < out.size(); ++i) {
    const double x = start[i], up = start[out.size() + i], s = 1 / (1 + std::exp(-x));
    EXPECT_NEAR(out[i], x * s * up, 1e-5);
    EXPECT_NEAR(gate_up[i], d_out[i] * up * (s + x * s * (1 - s)), 1e-5);
    EXPECT_NEAR(gate_up[out.size() + i], d_out[i] * x * s, 1e-5);
  }
}

TEST_P(RowOperations, RmsNormBackwardIsTheSlope) {
  const int64_t D = GetParam();
  const std::vector<float> x = Random(D, 4), w = Random(D, 5), dy = Random(D, 6);
  std::vector<float> y(x.size(), NAN), r(1, NAN), dx(x.size(), 0.0f);
  RmsNormRows(x.data(), w.data(), y.data(), r.data(), 0, 1, D, 1e-5f);
  RmsNormBackwardRows(dy.data(), x.data(), w.data(), r.data(), dx.data(), 0, 1, D);
  double squares = 0, dot = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    squares += static_cast<double>(x[i]) * x[i];
    dot += static_cast<double>(dy[i]) * w[i] * x[i];
  }
  const double n = static_cast<double>(D), scale = 1 / std::sqrt(squares / n + 1e-5);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(y[i], x[i] * scale * w[i], 1e-5);
    const double wanted = dy[i] * w[i] * scale - x[i] * scale * scale * scale * dot / n;
    EXPECT_NEAR(dx[i], wanted, 1e-4);
  }
}

TEST_P(RowOperations, ArgmaxTakesTheFirstOfTheLargest) {
  const int64_t V = GetParam();
  std::vector<float> row = Random(V, 7);
  const size_t place = static_cast<size_t>(V / 3);
  row[place] = 9;
  row[static_cast<size_t>(V - 1)] = 9;
  int64_t index = -1;
  ArgmaxRows(row.data(), &index, 0, 1, V);
  EXPECT_EQ(index, static_cast<int64_t>(place));
}

INSTANTIATE_TEST_SUITE_P(Lengths, RowOperations, ::testing::Values(3, 16, 33, 256, 704));

TEST(Rotate, TurnsBackToWhereItWas) {
  const int64_t d = 8, T = 3, heads = 2;
  std::vector<float> cos(static_cast<size_t>(T * d / 2)), sin(cos.size());
  for (size_t i = 0; i < cos.size(); ++i) {
    cos[i] = std::cos(0.3f * static_cast<float>(i));
    sin[i] = std::sin(0.3f * static_cast<float>(i));
  }
  RotaryRows rows{heads * d + 4, heads, d, T, cos.data(), sin.data(), 1.0f};
  std::vector<float> x = Random(2 * T * rows.row_stride, 8);
  const std::vector<float> start = x;
  RotateRows(x.data(), rows, 0, 2 * T);
  EXPECT_NEAR(x[static_cast<size_t>(rows.row_stride)],
              start[static_cast<size_t>(rows.row_stride)] * cos[4] -
                  start[static_cast<size_t>(rows.row_stride) + 4] * sin[4],
              1e-6);
  EXPECT_EQ(x[static_cast<size_t>(heads * d)], start[static_cast<size_t>(heads * d)]);  // v stays
  rows.sign = -1.0f;
  RotateRows(x.data(), rows, 0, 2 * T);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], start[i], 1e-5) << i;
}

}  // namespace
}  // namespace tandem
