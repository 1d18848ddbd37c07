// Inputs, calls and comparisons shared by the tests of the CPU attention kernels. Torch-free.
//
// Inputs are rounded to the kernel's type before the reference reads them, so a difference is the
// kernel's own. Outputs and scratch start as NaN: what a kernel does not write, or reads before
// writing, shows.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/tables.h"
#include "kernels/reference/attention.h"

namespace tandem::testing {

using reference::Array;

// Largest difference allowed, as a share of the largest element of the reference.
// double: sums of up to 1024 x 128 terms, each 1e-16; exp and log are libm's.
// float: the same sums at 6e-8, grown by sqrt(terms), and exp to 1 ulp of scores up to 10.
// Gradients of keys and maps sum over all later queries, with cancellation between them.
template <class T>
struct Tolerance;
template <>
struct Tolerance<double> {
  static constexpr double kOutput = 1e-12, kGradient = 1e-11, kSteepMap = 1e-12;
};
template <>
struct Tolerance<float> {
  static constexpr double kOutput = 3e-6, kGradient = 3e-5, kSteepMap = 3e-5;
};

// Every instruction set that this machine runs.
template <class T>
std::vector<const AttentionKernels<T>*> AllKernels() {
  std::vector<const AttentionKernels<T>*> all;
  if constexpr (std::is_same_v<T, float>) {
    all.push_back(&baseline::FloatTable());
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      all.push_back(&avx2::FloatTable());
#endif
  } else {
    all.push_back(&baseline::DoubleTable());
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      all.push_back(&avx2::DoubleTable());
#endif
  }
  if (all.back() != &Kernels<T>()) all.push_back(&Kernels<T>());
  return all;
}

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  Array Normal(int64_t n, double scale) {
    std::normal_distribution<double> normal(0, scale);
    Array values(static_cast<size_t>(n));
    for (double& value : values) value = static_cast<double>(static_cast<float>(normal(engine_)));
    return values;
  }

 private:
  std::mt19937 engine_;
};

template <class T>
std::vector<T> Cast(const Array& from) {
  std::vector<T> to(from.size());
  for (size_t i = 0; i < from.size(); ++i) to[i] = static_cast<T>(from[i]);
  return to;
}

template <class T>
std::vector<T> Poisoned(int64_t n) {
  return std::vector<T>(static_cast<size_t>(n), std::numeric_limits<T>::quiet_NaN());
}

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t elements) {
    const size_t bytes = (static_cast<size_t>(elements) * sizeof(T) + 63) / 64 * 64;
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes)));
    for (int64_t i = 0; i < elements; ++i) data_.get()[i] = std::numeric_limits<T>::quiet_NaN();
  }
  T* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

// Contiguous (B,X,T,width).
template <class T, class U>
Rows<T> RowsIn(U* data, const reference::Sizes& s, int64_t heads, int64_t width) {
  return {data, heads * s.tokens * width, s.tokens * width, width};
}

inline AttentionSizes SizesOf(const reference::Sizes& s) {
  return {s.batch, s.heads, s.kv_heads, s.tokens, s.dim, s.map_dim};
}

// Expects max |got - want| <= tolerance * max |want|; prints tensor, worst index and share of the
// tolerance. scale stands in for max |want| where that is smaller: gradients that vanish in exact
// arithmetic are differences of terms of that size.
template <class T>
void ExpectClose(const std::string& name, const std::vector<T>& got, const Array& want,
                 double tolerance, double scale = 1e-300) {
  ASSERT_EQ(got.size(), want.size()) << name;
  double largest = scale, worst = -1;
  size_t where = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(want[i]));
    const double difference = std::abs(static_cast<double>(got[i]) - want[i]);
    if (!(difference <= worst)) {  // also NaN
      worst = difference;
      where = i;
    }
    if (std::isnan(difference)) break;
  }
  EXPECT_TRUE(worst <= tolerance * largest)
      << name << " at " << where << " of " << want.size() << ": " << got[where] << " instead of "
      << want[where] << ", " << worst / (tolerance * largest) << " of the tolerance";
}

}  // namespace tandem::testing
