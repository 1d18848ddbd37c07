#include "worker/train/gradient_sum.h"

#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <cstring>
#include <span>
#include <vector>

namespace tandem {
namespace {

// One norm per tensor where the tensors are, their sum in double.
double DeviceNorm(const std::map<std::string, at::Tensor>& gradients) {
  std::vector<at::Tensor> all;
  for (const auto& [name, gradient] : gradients) all.push_back(gradient);
  return at::stack(at::_foreach_norm(all, 2)).to(at::kDouble).square().sum().sqrt().item<double>();
}

}  // namespace

void SumGradients(Collective& collective, std::map<std::string, at::Tensor>& gradients) {
  if (collective.size() == 1) return;
  std::vector<float> flat;
  for (const auto& [name, gradient] : gradients) {
    const at::Tensor host = gradient.cpu().contiguous();  // MPI knows host memory alone
    const float* values = host.const_data_ptr<float>();
    flat.insert(flat.end(), values, values + host.numel());
  }
  collective.AllReduceSum(std::span<float>(flat));
  const float* next = flat.data();
  for (auto& [name, gradient] : gradients) {
    const at::Tensor sum = at::empty(gradient.sizes(), at::kFloat);
    std::memcpy(sum.mutable_data_ptr<float>(), next, sum.nbytes());
    next += sum.numel();
    gradient = sum.to(gradient.device());
  }
}

double GradientNorm(const std::map<std::string, at::Tensor>& gradients) {
  if (gradients.empty()) return 0;
  if (!gradients.begin()->second.device().is_cpu()) return DeviceNorm(gradients);
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
