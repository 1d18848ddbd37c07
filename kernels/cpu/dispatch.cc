// Picks the kernels for the processor this runs on.
#include "kernels/cpu/tables.h"

namespace tandem {
namespace {

enum class InstructionSet { kBaseline, kAvx2, kAvx512 };

InstructionSet Detect() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512cd"))
    return InstructionSet::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return InstructionSet::kAvx2;
#endif
  return InstructionSet::kBaseline;
}

InstructionSet Detected() {
  static const InstructionSet set = Detect();
  return set;
}

}  // namespace

template <>
const AttentionKernels<float>& Kernels<float>() {
#if defined(__x86_64__)
  if (Detected() == InstructionSet::kAvx512) return avx512::FloatTable();
  if (Detected() == InstructionSet::kAvx2) return avx2::FloatTable();
#endif
  return baseline::FloatTable();
}

template <>
const AttentionKernels<double>& Kernels<double>() {
#if defined(__x86_64__)
  if (Detected() == InstructionSet::kAvx512) return avx512::DoubleTable();
  if (Detected() == InstructionSet::kAvx2) return avx2::DoubleTable();
#endif
  return baseline::DoubleTable();
}

}  // namespace tandem
