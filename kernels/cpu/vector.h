// Vectors of the compiled instruction set, with exp and log.
//
// Included only by the units that are compiled once per instruction set: everything lies in a
// namespace named by TANDEM_KERNEL_ISA and nothing from the standard library is instantiated, so
// that no inline function compiled for a newer processor can be linked into code for an older one.
#pragma once

#include <cstdint>

#ifndef TANDEM_KERNEL_ISA
#error "compile through kernels/CMakeLists.txt, which names the instruction set"
#endif

namespace tandem::TANDEM_KERNEL_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef float U __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VectorTypes<double> {
  typedef double V __attribute__((vector_size(kVectorBytes)));
  typedef double U __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t I __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vec = typename VectorTypes<T>::V;
template <class T>
using IntVec = typename VectorTypes<T>::I;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
inline Vec<T> Load(const T* p) {
  return *reinterpret_cast<const typename VectorTypes<T>::U*>(p);
}
template <class T>
inline void Store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VectorTypes<T>::U*>(p) = v;
}
template <class T>
inline Vec<T> Splat(T x) {
  return x - Vec<T>{};
}
// A NaN that must be seen stands second: comparisons with it are false, so b is what is returned.
// A model that has gone wrong then ends in a loss that is not finite, not in a plausible number.
template <class V>
inline V Max(V a, V b) {
  return a > b ? a : b;
}
template <class V>
inline V Min(V a, V b) {
  return a < b ? a : b;
}

// exp to about 1 ulp for x in [-87.3, 88]; below, the smallest normal number; NaN for NaN. Cephes'
// polynomial.
inline Vec<float> Exp(Vec<float> x) {
  x = Max(Splat(-87.3f), Min(Splat(88.0f), x));
  const Vec<float> magic = Splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec<float> shifted = x * 1.44269504f + magic;
  const Vec<float> n = shifted - magic;
  const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = (y * r) * r + r + 1.0f;
  const IntVec<float> exponent = ((IntVec<float>)shifted - (IntVec<float>)magic + 127) << 23;
  return y * (Vec<float>)exponent;
}
inline Vec<double> Exp(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

// Natural logarithm of normal positive numbers, to about 2 ulp; NaN for NaN. Cephes' polynomial.
inline Vec<float> Log(Vec<float> x) {
  const IntVec<float> bits = (IntVec<float>)x;
  // The mantissa in [sqrt(1/2), sqrt(2)): 0x3f3504f3 is sqrt(1/2).
  const IntVec<float> exponent = (bits - 0x3f3504f3) >> 23;
  const Vec<float> m = (Vec<float>)(bits - (exponent << 23)) - 1.0f;
  const Vec<float> e = __builtin_convertvector(exponent, Vec<float>);
  const Vec<float> z = m * m;
  Vec<float> y = m * 7.0376836292e-2f - 1.1514610310e-1f;
  y = y * m + 1.1676998740e-1f;
  y = y * m - 1.2420140846e-1f;
  y = y * m + 1.4249322787e-1f;
  y = y * m - 1.6668057665e-1f;
  y = y * m + 2.0000714765e-1f;
  y = y * m - 2.4999993993e-1f;
  y = y * m + 3.3333331174e-1f;
  y = y * m * z + e * -2.12194440e-4f - z * 0.5f;
  y += x * 0.0f;  // the bits above know no NaN
  return m + y + e * 0.693359375f;
}
inline Vec<double> Log(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_log(x[i]);
  return x;
}

}  // namespace tandem::TANDEM_KERNEL_ISA
