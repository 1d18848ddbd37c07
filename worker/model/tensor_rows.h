// Row operations on tensors: the arithmetic between the model's matrix products.
//
// fp32 on the CPU takes the loops of row_operations.h, rows split over ATen's threads; other
// devices and types the same formulas through ATen (tensor_rows_aten.h). Contiguous tensors, all on
// one device; leading dimensions count as rows. Free of state; wrong shapes throw c10::Error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tandem {

struct NormedRows {
  at::Tensor y;            // like x
  at::Tensor inverse_rms;  // (N)
};
NormedRows RmsNorm(const at::Tensor& x, const at::Tensor& w_D, double eps);
// The same y again, from what was kept.
at::Tensor RmsNormAgain(const at::Tensor& x, const at::Tensor& w_D, const at::Tensor& inverse_rms);
// dx += (d norm / dx)^T dy.
void AddRmsNormBackward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w_D,
                        const at::Tensor& inverse_rms, const at::Tensor& dx);

// The first `heads` heads of each row of rows_NC are turned in place; rows count T after T.
struct RotaryTable {
  at::Tensor cos, sin;  // (T,d/2)
};
void Rotate(const at::Tensor& rows_NC, int64_t heads, const RotaryTable& table, bool backward);

at::Tensor SwiGlu(const at::Tensor& gate_up_N2I);
// gate_up becomes its gradient.
void SwiGluBackward(const at::Tensor& gate_up_N2I, const at::Tensor& d_out_NI);

// Losses (N); logits become scale times their gradient unless scale is 0.
at::Tensor CrossEntropy(const at::Tensor& logits_NV, const at::Tensor& labels_N, double scale);
at::Tensor Argmax(const at::Tensor& logits_NV);  // int64 (N)

}  // namespace tandem
