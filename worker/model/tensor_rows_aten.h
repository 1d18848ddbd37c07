// The row operations of tensor_rows.h written with ATen's own operators: for CUDA and for every
// type but fp32 on the CPU, where the loops of row_operations.h are taken. Private to this folder.
//
// Same arguments, same mathematics, same results up to rounding. Free of state.
#pragma once

#include <cstdint>

#include "worker/model/tensor_rows.h"

namespace tandem::aten_rows {

NormedRows RmsNorm(const at::Tensor& x, const at::Tensor& w_D, double eps);
at::Tensor RmsNormAgain(const at::Tensor& x, const at::Tensor& w_D, const at::Tensor& inverse_rms);
void AddRmsNormBackward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w_D,
                        const at::Tensor& inverse_rms, const at::Tensor& dx);
void Rotate(const at::Tensor& rows_NC, int64_t heads, const RotaryTable& table, bool backward);
at::Tensor SwiGlu(const at::Tensor& gate_up_N2I);
void SwiGluBackward(const at::Tensor& gate_up_N2I, const at::Tensor& d_out_NI);
at::Tensor CrossEntropy(const at::Tensor& logits_NV, const at::Tensor& labels_N, double scale);
at::Tensor Argmax(const at::Tensor& logits_NV);

}  // namespace tandem::aten_rows
