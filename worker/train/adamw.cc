#include "worker/train/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <utility>

#include "worker/model/row_operations.h"

// Without OpenMP, ATen's parallel_for runs on one thread and says nothing (cmake/Torch.cmake).
#ifndef INTRA_OP_PARALLEL
#error "compile with TANDEM_PARALLEL_OPTIONS"
#endif

namespace tandem {
namespace {

constexpr int64_t kGrainElements = 16384;

// Of the `update`-th update, counted from 1.
AdamCoefficients CoefficientsAt(int64_t update, double learning_rate) {
  AdamCoefficients c;
  const double t = static_cast<double>(update);
  c.step_size = static_cast<float>(learning_rate / (1.0 - std::pow(0.9, t)));
  c.inverse_bias = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(0.999, t)));
  return c;
}

}  // namespace

AdamW::AdamW(std::map<std::string, at::Tensor> trained) : trained_(std::move(trained)) {
  for (const auto& [name, tensor] : trained_) {
    first_[name] = at::zeros_like(tensor);
    second_[name] = at::zeros_like(tensor);
    updates_[name] = at::zeros({}, at::kLong);
  }
}

void AdamW::Step(const std::map<std::string, at::Tensor>& gradients, double learning_rate) {
  for (const auto& [name, gradient] : gradients) {
    const at::Tensor &tensor = trained_.at(name), g = gradient.contiguous();
    TORCH_CHECK(g.sizes() == tensor.sizes(), "gradient of ", name, " has shape ", g.sizes(),
                ", the parameter ", tensor.sizes());
    const int64_t updates = ++*updates_.at(name).mutable_data_ptr<int64_t>();
    const AdamCoefficients c = CoefficientsAt(updates, learning_rate);
    float* p = tensor.mutable_data_ptr<float>();
    float* m = first_.at(name).mutable_data_ptr<float>();
    float* v = second_.at(name).mutable_data_ptr<float>();
    const float* d = g.const_data_ptr<float>();
    at::parallel_for(0, tensor.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      AdamUpdate(p + begin, m + begin, v + begin, d + begin, end - begin, c);
    });
  }
}

void AdamW::AddState(std::map<std::string, at::Tensor>& state) const {
  for (const auto& [name, moment] : first_) state["adam.m." + name] = moment;
  for (const auto& [name, moment] : second_) state["adam.v." + name] = moment;
  for (const auto& [name, count] : updates_) state["adam.t." + name] = count;
}

}  // namespace tandem
