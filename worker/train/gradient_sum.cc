#include "worker/train/gradient_sum.h"

#include <cmath>
#include <cstring>
#include <span>
#include <vector>

namespace tandem {

void SumGradients(Collective& collective, std::map<std::string, at::Tensor>& gradients) {
  if (collective.size() == 1) return;
  std::vector<float> flat;
  for (auto& [name, gradient] : gradients) {
    gradient = gradient.contiguous();
    const float* values = gradient.const_data_ptr<float>();
    flat.insert(flat.end(), values, values + gradient.numel());
  }
  collective.AllReduceSum(std::span<float>(flat));
  const float* next = flat.data();
  for (auto& [name, gradient] : gradients) {
    std::memcpy(gradient.mutable_data_ptr<float>(), next,
                static_cast<size_t>(gradient.numel()) * sizeof(float));
    next += gradient.numel();
  }
}

double GradientNorm(const std::map<std::string, at::Tensor>& gradients) {
  double sum = 0;
  for (const auto& [name, gradient] : gradients) {
    const at::Tensor g = gradient.contiguous();
    const float* values = g.const_data_ptr<float>();
    const int64_t count = g.numel();
    double part = 0;
    for (int64_t i = 0; i < count; ++i) part += static_cast<double>(values[i]) * values[i];
    sum += part;
  }
  return std::sqrt(sum);
}

}  // namespace tandem
