// Products of fp32 rows with a frozen weight (out,in) of the base's type.
//
// Operands are taken in the weight's type, sums and results are fp32: for a bf16 base the rows are
// rounded to bf16 and nothing else is. Every product with a frozen weight goes through here. Free
// of state; throws c10::Error on wrong shapes.
#pragma once

#include <ATen/core/Tensor.h>

namespace tandem {

at::Tensor TimesTransposed(const at::Tensor& x, const at::Tensor& w);  // x w^T, (N,in) -> (N,out)
at::Tensor Times(const at::Tensor& x, const at::Tensor& w);            // x w, (N,out) -> (N,in)
// The same into memory that is there already.
void TimesTransposedInto(const at::Tensor& out, const at::Tensor& x, const at::Tensor& w);
void TimesInto(const at::Tensor& out, const at::Tensor& x, const at::Tensor& w);
// sum + x w^T, in own memory.
at::Tensor AddTimesTransposed(const at::Tensor& sum, const at::Tensor& x, const at::Tensor& w);

}  // namespace tandem
