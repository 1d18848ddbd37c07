// The kernel tables, one pair per compiled instruction set; dispatch.cc picks one at run time.
// Immutable.
#pragma once

#include "kernels/cpu/attention.h"

namespace tandem {
namespace baseline {
const AttentionKernels<float>& FloatTable();
const AttentionKernels<double>& DoubleTable();
}  // namespace baseline
namespace avx2 {
const AttentionKernels<float>& FloatTable();
const AttentionKernels<double>& DoubleTable();
}  // namespace avx2
namespace avx512 {
const AttentionKernels<float>& FloatTable();
const AttentionKernels<double>& DoubleTable();
}  // namespace avx512
}  // namespace tandem
