#include "worker/train/attention_transfer.h"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "worker/train/gradient_sum.h"

namespace tandem {
namespace {

std::string LayerPrefix(int64_t layer_index) {
  return "layers." + std::to_string(layer_index) + ".";
}

TransferObjective ObjectiveOf(const AttentionTransferOptions& options) {
  return options.objective == "mixture" ? options.mixture
                                        : TransferObjectiveFromWord(options.objective);
}

// A cross-entropy of attention weights and nothing else.
bool IsByWeights(const TransferObjective& objective) {
  return objective.weights == 1 && objective.outputs == 0 && !objective.TrainsFactor();
}

// Per row and head, (B,H,T): -sum p* ln p* = LSE - q . sum p* k / sqrt(d).
at::Tensor EntropyOfRows(const QkvTensors& in) {
  const SoftmaxResult keys = CausalSoftmax(in.q, in.k, in.k);
  const double tau = 1 / std::sqrt(static_cast<double>(in.q.size(3)));
  return keys.lse_BHT.sub(in.q.mul(keys.out_BHTd).sum(-1), tau);
}

TransferCall TransferCallOf(const QkvTensors& in, const LayerParameters& layer,
                            const AttentionForm& form, int64_t layer_index) {
  TransferCall call;
  AttentionCall& attention = call.attention;
  attention.q = in.q;
  attention.k = in.k;
  attention.v = in.v;
  attention.w_q = layer.feature_map_q;
  attention.w_k = layer.feature_map_k;
  attention.b_q = layer.feature_map_q_bias;
  attention.b_k = layer.feature_map_k_bias;
  attention.form = form;
  attention.retained = form.RetainedIn(layer_index);
  call.theta = layer.window_factor;
  return call;
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
    if (layer.feature_map_q_bias.defined()) {
      trained[LayerPrefix(i) + "feature_map_q_bias"] = layer.feature_map_q_bias;
      trained[LayerPrefix(i) + "feature_map_k_bias"] = layer.feature_map_k_bias;
    }
    if (ObjectiveOf(options).TrainsFactor()) {
      trained[LayerPrefix(i) + "window_factor"] = layer.window_factor;
    }
    optimisers_.emplace_back(std::move(trained));
  }
}

double AttentionTransfer::TeachSpan(int64_t layer_index, const QkvTensors& in, double share,
                                    std::map<std::string, at::Tensor>& gradients,
                                    at::Tensor& y_BHTd) {
  const LayerParameters& layer = parameters_.layer(layer_index);
  const SoftmaxResult teacher = CausalSoftmax(in.q, in.k, in.v);
  y_BHTd = teacher.out_BHTd;
  const auto parts = static_cast<double>(parameters_.num_layers() * collective_.size());
  TransferCall call = TransferCallOf(in, layer, options_.attention, layer_index);
  call.factor = parameters_.options().mixing_factor;
  call.teacher = teacher;
  call.grad_scale = share / parts;
  const TransferResult result = TransferLayer(ObjectiveOf(options_), call);
  const auto add = [&](const char* name, const at::Tensor& gradient) {
    if (!gradient.defined()) return;
    at::Tensor& sum = gradients[LayerPrefix(layer_index) + name];
    sum = sum.defined() ? sum.add(gradient) : gradient;
  };
  add("feature_map_q", result.d_w_q);
  add("feature_map_k", result.d_w_k);
  add("feature_map_q_bias", result.d_b_q);
  add("feature_map_k_bias", result.d_b_k);
  add("window_factor", result.d_theta);
  return result.loss * share;
}

double AttentionTransfer::TeachLayer(int64_t layer_index, const at::Tensor& x_BTD,
                                     const std::vector<DocumentSpan>& spans,
                                     std::map<std::string, at::Tensor>& gradients,
                                     at::Tensor& y_BHTd) {
  const QkvTensors in = model_.Qkv(x_BTD, layer_index, nullptr);
  double loss = 0;
  if (spans.empty()) {
    loss = TeachSpan(layer_index, in, 1, gradients, y_BHTd);
  } else {
    const auto tokens = static_cast<double>(x_BTD.size(0) * x_BTD.size(1));
    std::vector<at::Tensor> outputs(spans.size());
    for (size_t i = 0; i < spans.size(); ++i) {
      loss += TeachSpan(layer_index, Within(in, spans[i]),
                        static_cast<double>(spans[i].count) / tokens, gradients, outputs[i]);
    }
    y_BHTd = JoinSpans(outputs, spans);
  }
  loss /= static_cast<double>(collective_.size());
  collective_.AllReduceSum(std::span<double>(&loss, 1));
  SumGradients(collective_, gradients);
  return loss;
}

double AttentionTransfer::TeacherEntropy(int64_t layer_index, const at::Tensor& x_BTD,
                                         const std::vector<DocumentSpan>& spans) const {
  const QkvTensors in = model_.Qkv(x_BTD, layer_index, nullptr);
  const int64_t groups = in.k.size(1), rows = x_BTD.size(0) * x_BTD.size(1);
  const LayerRetention& retained = options_.attention.RetainedIn(layer_index);
  const auto converted = groups - static_cast<int64_t>(retained.size());
  double sum = 0;
  const auto add = [&](const QkvTensors& part) {
    const at::Tensor of_groups = EntropyOfRows(part)
                                     .unflatten(1, {groups, -1})
                                     .sum(at::IntArrayRef{0, 2, 3}, false, at::kDouble)
                                     .cpu();
    for (int64_t group = 0; group < groups; ++group) {
      const bool is_retained = std::find(retained.begin(), retained.end(), group) != retained.end();
      if (!is_retained) sum += of_groups.const_data_ptr<double>()[group];
    }
  };
  if (spans.empty()) add(in);
  for (const DocumentSpan& span : spans) add(Within(in, span));
  const int64_t heads = std::max<int64_t>(1, converted) * (in.q.size(1) / groups);
  double mean = sum / static_cast<double>(heads * rows * collective_.size());
  collective_.AllReduceSum(std::span<double>(&mean, 1));
  return mean;
}

void AttentionTransfer::Rehearse(const StepBatch& batch) {
  std::map<std::string, at::Tensor> gradients;
  LossesAndGradients(batch, gradients);
}

StepReport AttentionTransfer::Step(int64_t step, const StepBatch& batch) {
  at::NoGradGuard no_gradients;
  StepReport report;
  report.learning_rate = options_.schedule.At(step);
  const int64_t M = parameters_.num_layers();
  const std::vector<DocumentSpan> spans = DocumentSpansOf(batch);
  const bool tells_divergence =
      IsByWeights(ObjectiveOf(options_)) && step + 1 == options_.schedule.steps;
  at::Tensor x = model_.Embed(batch.ids_BT), y;
  for (int64_t i = 0; i < M; ++i) {
    std::map<std::string, at::Tensor> gradients;
    const double loss = TeachLayer(i, x, spans, gradients, y);
    if (!std::isfinite(loss) || !std::isfinite(GradientNorm(gradients))) {
      throw NonFiniteLoss("attention transfer, step " + std::to_string(step) + ", layer " +
                          std::to_string(i) + ": loss or gradient is not finite (loss " +
                          std::to_string(loss) + "); lower attention_transfer.learning_rate");
    }
    optimisers_[static_cast<size_t>(i)].Step(gradients, report.learning_rate);
    report.layer_losses.push_back(loss);
    if (tells_divergence) report.layer_divergences.push_back(loss - TeacherEntropy(i, x, spans));
    report.loss += loss / static_cast<double>(M);
    if (i + 1 < M) x = model_.FinishLayer(x, y, i, nullptr);
  }
  return report;
}

std::vector<double> AttentionTransfer::LossesAndGradients(
    const StepBatch& batch, std::map<std::string, at::Tensor>& gradients) {
  at::NoGradGuard no_gradients;
  std::vector<double> losses;
  const std::vector<DocumentSpan> spans = DocumentSpansOf(batch);
  at::Tensor x = model_.Embed(batch.ids_BT), y;
  for (int64_t i = 0; i < parameters_.num_layers(); ++i) {
    std::map<std::string, at::Tensor> of_layer;
    losses.push_back(TeachLayer(i, x, spans, of_layer, y));
    gradients.merge(of_layer);
    if (i + 1 < parameters_.num_layers()) x = model_.FinishLayer(x, y, i, nullptr);
  }
  return losses;
}

std::map<std::string, at::Tensor> AttentionTransfer::State() const {
  std::map<std::string, at::Tensor> state = parameters_.tensors();
  for (const AdamW& optimiser : optimisers_) optimiser.AddState(state);
  return state;
}

}  // namespace tandem
