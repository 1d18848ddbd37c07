// The ATen twins of the row operations beside the loops, which are tested against double.
#include "worker/model/tensor_rows.h"

#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include "tests/unit/train/tiny_model.h"
#include "worker/model/llama.h"
#include "worker/model/tensor_rows_aten.h"

namespace tandem {
namespace {

using testing::RandomTensor;

// Largest difference; NaN anywhere is infinite.
double Difference(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).abs().nan_to_num(INFINITY).max().item<double>();
}

TEST(AtenRows, RmsNormAndItsGradient) {
  const at::Tensor x = RandomTensor({2, 5, 33}, 2, 1), w = RandomTensor({33}, 2, 2);
  const NormedRows loop = RmsNorm(x, w, 1e-5), twin = aten_rows::RmsNorm(x, w, 1e-5);
  EXPECT_LT(Difference(loop.y, twin.y), 1e-6);
  EXPECT_LT(Difference(loop.inverse_rms, twin.inverse_rms), 1e-6);
  EXPECT_LT(Difference(twin.y, aten_rows::RmsNormAgain(x, w, twin.inverse_rms)), 1e-7);
  const at::Tensor dy = RandomTensor({2, 5, 33}, 2, 3), start = RandomTensor({2, 5, 33}, 1, 4);
  const at::Tensor dx_loop = start.clone(), dx_twin = start.clone();
  AddRmsNormBackward(dy, x, w, loop.inverse_rms, dx_loop);
  aten_rows::AddRmsNormBackward(dy, x, w, loop.inverse_rms, dx_twin);
  EXPECT_LT(Difference(dx_loop, dx_twin), 2e-6);
  EXPECT_GT(Difference(dx_twin, start), 0.1);
}

TEST(AtenRows, RotateTurnsTheFirstHeadsAndBack) {
  const auto model = testing::TinyModel();
  const Llama::Rotary rotary = model->RotaryTables(6);
  const at::Tensor start = RandomTensor({12, 5 * 8}, 2, 5);  // B = 2, T = 6, 3 of 5 heads turn
  const at::Tensor loop = start.clone(), twin = start.clone();
  Rotate(loop, 3, {rotary.cos, rotary.sin}, false);
  aten_rows::Rotate(twin, 3, {rotary.cos, rotary.sin}, false);
  EXPECT_LT(Difference(loop, twin), 1e-6);
  EXPECT_GT(Difference(twin, start), 0.1);
  EXPECT_EQ(Difference(twin.narrow(1, 24, 16), start.narrow(1, 24, 16)), 0);
  aten_rows::Rotate(twin, 3, {rotary.cos, rotary.sin}, true);
  EXPECT_LT(Difference(twin, start), 1e-6);
}

TEST(AtenRows, SwiGluAndItsGradient) {
  const at::Tensor gate_up = RandomTensor({4, 2 * 19}, 6, 6), d_out = RandomTensor({4, 19}, 2, 7);
  EXPECT_LT(Difference(SwiGlu(gate_up), aten_rows::SwiGlu(gate_up)), 4e-6);
  const at::Tensor loop = gate_up.clone(), twin = gate_up.clone();
  SwiGluBackward(loop, d_out);
  aten_rows::SwiGluBackward(twin, d_out);
  EXPECT_LT(Difference(loop, twin), 4e-6);
}

TEST(AtenRows, CrossEntropyItsGradientAndTheGuess) {
  const at::Tensor logits = RandomTensor({6, 65}, 8, 8);
  const at::Tensor labels = testing::RandomIds(1, 6, 65, 9).view({-1});
  for (const double scale : {0.0, 0.25}) {
    const at::Tensor loop = logits.clone(), twin = logits.clone();
    EXPECT_LT(
        Difference(CrossEntropy(loop, labels, scale), aten_rows::CrossEntropy(twin, labels, scale)),
        4e-6);
    EXPECT_LT(Difference(loop, twin), 1e-6);
  }
  EXPECT_TRUE(Argmax(logits).equal(aten_rows::Argmax(logits)));
}

}  // namespace
}  // namespace tandem
