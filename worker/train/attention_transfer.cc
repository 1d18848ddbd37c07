#include "worker/train/attention_transfer.h"

#include <ATen/ops/mean.h>
#include <ATen/ops/sigmoid.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <span>
#include <utility>

#include "worker/train/gradient_sum.h"

namespace tandem {
namespace {

std::string LayerPrefix(int64_t layer_index) {
  return "layers." + std::to_string(layer_index) + ".";
}

// gamma = exp(theta) is no case of the fused step: the same loss through autograd.
TransferResult TransferByAutograd(const QkvTensors& in, const at::Tensor& y_teacher,
                                  const LayerParameters& layer, const std::string& factor,
                                  const HybridOptions& options, double grad_scale) {
  at::AutoGradMode gradients_on(true);
  const at::Tensor w_q = layer.feature_map_q.detach().set_requires_grad(true);
  const at::Tensor w_k = layer.feature_map_k.detach().set_requires_grad(true);
  const at::Tensor theta = layer.window_factor.detach().set_requires_grad(true);
  const at::Tensor y = HybridAttentionWithMaps(in.q, in.k, in.v, w_q, w_k,
                                               ActivateWindowFactor(theta, factor), options);
  const at::Tensor loss = (y.sub(y_teacher)).square().mean().mul(kOutputsLossScale);
  std::vector<at::Tensor> g = torch::autograd::grad({loss.mul(grad_scale)}, {w_q, w_k, theta});
  return {loss.item<double>(), g[0], g[1], g[2]};
}

}  // namespace

AttentionTransfer::AttentionTransfer(const Llama& model, const Parameters& parameters,
                                     Collective& collective,
                                     const AttentionTransferOptions& options)
    : model_(model), parameters_(parameters), collective_(collective), options_(options) {
  for (int64_t i = 0; i < parameters.num_layers(); ++i) {
    const LayerParameters& layer = parameters.layer(i);
    std::map<std::string, at::Tensor> trained = {
        {LayerPrefix(i) + "feature_map_q", layer.feature_map_q},
        {LayerPrefix(i) + "feature_map_k", layer.feature_map_k}};
    if (options.objective == "hybrid_outputs") {
      trained[LayerPrefix(i) + "window_factor"] = layer.window_factor;
    }
    optimisers_.emplace_back(std::move(trained));
  }
}

double AttentionTransfer::TeachLayer(int64_t layer_index, const at::Tensor& x_BTD,
                                     std::map<std::string, at::Tensor>& gradients,
                                     at::Tensor& y_BHTd) {
  const LayerParameters& layer = parameters_.layer(layer_index);
  const QkvTensors in = model_.Qkv(x_BTD, layer_index, nullptr);
  const SoftmaxResult teacher = CausalSoftmax(in.q, in.k, in.v);
  y_BHTd = teacher.out_BHTd;
  const double ranks = static_cast<double>(collective_.size());
  const double scale = 1.0 / (static_cast<double>(parameters_.num_layers()) * ranks);
  const std::string& factor = parameters_.options().mixing_factor;
  TransferResult result;
  if (options_.objective == "weights") {
    result = TransferWeights(in.q, in.k, in.v, teacher.lse_BHT, layer.feature_map_q,
                             layer.feature_map_k, scale);
  } else if (factor == "sigmoid") {
    result = TransferHybridOutputs(in.q, in.k, in.v, teacher.out_BHTd, layer.feature_map_q,
                                   layer.feature_map_k, layer.window_factor, options_.attention,
                                   kOutputsLossScale, scale);
  } else {
    result = TransferByAutograd(in, teacher.out_BHTd, layer, factor, options_.attention, scale);
  }
  gradients[LayerPrefix(layer_index) + "feature_map_q"] = result.d_w_q;
  gradients[LayerPrefix(layer_index) + "feature_map_k"] = result.d_w_k;
  if (options_.objective == "hybrid_outputs") {
    gradients[LayerPrefix(layer_index) + "window_factor"] = result.d_theta;
  }
  double loss = result.loss / ranks;
  collective_.AllReduceSum(std::span<double>(&loss, 1));
  SumGradients(collective_, gradients);
  return loss;
}

StepReport AttentionTransfer::Step(int64_t step, const StepBatch& batch) {
  at::NoGradGuard no_gradients;
  StepReport report;
  report.learning_rate = options_.schedule.At(step);
  const int64_t M = parameters_.num_layers();
  at::Tensor x = model_.Embed(batch.ids_BT), y;
  for (int64_t i = 0; i < M; ++i) {
    std::map<std::string, at::Tensor> gradients;
    const double loss = TeachLayer(i, x, gradients, y);
    if (!std::isfinite(loss) || !std::isfinite(GradientNorm(gradients))) {
      throw NonFiniteLoss("attention transfer, step " + std::to_string(step) + ", layer " +
                          std::to_string(i) + ": loss or gradient is not finite (loss " +
                          std::to_string(loss) + "); lower attention_transfer.learning_rate");
    }
    optimisers_[static_cast<size_t>(i)].Step(gradients, report.learning_rate);
    report.layer_losses.push_back(loss);
    report.loss += loss / static_cast<double>(M);
    if (i + 1 < M) x = model_.FinishLayer(x, y, i, nullptr);
  }
  return report;
}

std::vector<double> AttentionTransfer::LossesAndGradients(
    const StepBatch& batch, std::map<std::string, at::Tensor>& gradients) {
  at::NoGradGuard no_gradients;
  std::vector<double> losses;
  at::Tensor x = model_.Embed(batch.ids_BT), y;
  for (int64_t i = 0; i < parameters_.num_layers(); ++i) {
    std::map<std::string, at::Tensor> of_layer;
    losses.push_back(TeachLayer(i, x, of_layer, y));
    gradients.merge(of_layer);
    x = model_.FinishLayer(x, y, i, nullptr);
  }
  return losses;
}

std::map<std::string, at::Tensor> AttentionTransfer::State() const {
  std::map<std::string, at::Tensor> state = parameters_.tensors();
  for (const AdamW& optimiser : optimisers_) optimiser.AddState(state);
  return state;
}

}  // namespace tandem
