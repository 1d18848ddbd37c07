// Comparisons of tensors for the attention tests.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace tandem::testing {

// Expects max |got - want| <= tolerance * max(max |want|, scale), both read in double.
inline void ExpectNear(const std::string& name, const at::Tensor& got, const at::Tensor& want,
                       double tolerance, double scale = 1e-300) {
  ASSERT_TRUE(got.defined()) << name << " is undefined";
  ASSERT_EQ(got.sizes(), want.sizes()) << name;
  const at::Tensor difference =
      got.detach().to(at::kDouble).sub(want.detach().to(at::kDouble)).abs();
  const double worst = difference.max().item().toDouble();
  const double largest =
      std::max(scale, want.detach().to(at::kDouble).abs().max().item().toDouble());
  EXPECT_TRUE(worst <= tolerance * largest)
      << name << " at flat index " << difference.flatten().argmax().item().toLong() << ": off by "
      << worst << " where the largest is " << largest << ", " << worst / (tolerance * largest)
      << " of the tolerance";
}

}  // namespace tandem::testing
