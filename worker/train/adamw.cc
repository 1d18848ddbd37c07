#include "worker/train/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <utility>
#include <vector>

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
    const at::Tensor& tensor = trained_.at(name);
    TORCH_CHECK(gradient.sizes() == tensor.sizes(), "gradient of ", name, " has shape ",
                gradient.sizes(), ", the parameter ", tensor.sizes());
    ++*updates_.at(name).mutable_data_ptr<int64_t>();
    if (tensor.device().is_cpu()) UpdateOnHost(name, gradient, learning_rate);
  }
  if (!gradients.empty() && !gradients.begin()->second.device().is_cpu()) {
    UpdateOnDevice(gradients, learning_rate);
  }
}

void AdamW::UpdateOnHost(const std::string& name, const at::Tensor& gradient,
                         double learning_rate) {
  const at::Tensor &tensor = trained_.at(name), g = gradient.contiguous();
  const int64_t updates = *updates_.at(name).const_data_ptr<int64_t>();
  const AdamCoefficients c = CoefficientsAt(updates, learning_rate);
  float* p = tensor.mutable_data_ptr<float>();
  float* m = first_.at(name).mutable_data_ptr<float>();
  float* v = second_.at(name).mutable_data_ptr<float>();
  const float* d = g.const_data_ptr<float>();
  at::parallel_for(0, tensor.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
    AdamUpdate(p + begin, m + begin, v + begin, d + begin, end - begin, c);
  });
}

void AdamW::UpdateOnDevice(const std::map<std::string, at::Tensor>& gradients,
                           double learning_rate) {
  std::vector<at::Tensor> p, g, m, v, steps;
  std::map<int64_t, at::Tensor> step_of_count;  // mostly one
  for (const auto& [name, gradient] : gradients) {
    p.push_back(trained_.at(name));
    g.push_back(gradient.contiguous());
    m.push_back(first_.at(name));
    v.push_back(second_.at(name));
    const int64_t count = *updates_.at(name).const_data_ptr<int64_t>();
    at::Tensor& step = step_of_count[count];
    if (!step.defined()) step = at::full({}, static_cast<double>(count), gradient.options());
    steps.push_back(step);
  }
  at::_fused_adamw_(p, g, m, v, /*max_exp_avg_sqs=*/{}, steps, learning_rate, /*beta1=*/0.9,
                    /*beta2=*/0.999, /*weight_decay=*/0.0, /*eps=*/1e-8, /*amsgrad=*/false,
                    /*maximize=*/false);
}

void AdamW::AddState(std::map<std::string, at::Tensor>& state) const {
  for (const auto& [name, moment] : first_) state["adam.m." + name] = moment;
  for (const auto& [name, moment] : second_) state["adam.v." + name] = moment;
  for (const auto& [name, count] : updates_) state["adam.t." + name] = count;
}

}  // namespace tandem
