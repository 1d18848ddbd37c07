#include "worker/train/layer_teacher.h"

#include <algorithm>
#include <cmath>

namespace tandem {
namespace {

// Per row and head, (B,H,T): -sum p* ln p* = LSE - q . sum p* k / sqrt(d).
at::Tensor EntropyOfRows(const QkvTensors& in) {
  const SoftmaxResult keys = CausalSoftmax(in.q, in.k, in.k);
  const double tau = 1 / std::sqrt(static_cast<double>(in.q.size(3)));
  return keys.lse_BHT.sub(in.q.mul(keys.out_BHTd).sum(-1), tau);
}

// Sum over the rows of the groups that are converted.
double SumOfConverted(const at::Tensor& rows_BHT, int64_t groups, const LayerRetention& retained) {
  const at::Tensor of_groups =
      rows_BHT.unflatten(1, {groups, -1}).sum(at::IntArrayRef{0, 2, 3}, false, at::kDouble).cpu();
  double sum = 0;
  for (int64_t group = 0; group < groups; ++group) {
    const bool is_retained = std::find(retained.begin(), retained.end(), group) != retained.end();
    if (!is_retained) sum += of_groups.const_data_ptr<double>()[group];
  }
  return sum;
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

std::string LayerPrefix(int64_t layer_index) {
  return "layers." + std::to_string(layer_index) + ".";
}

double LayerTeacher::TeachSpan(int64_t layer_index, const QkvTensors& in, double grad_scale,
                               Gradients& gradients, at::Tensor& y_BHTd) const {
  const SoftmaxResult teacher = CausalSoftmax(in.q, in.k, in.v);
  y_BHTd = teacher.out_BHTd;
  TransferCall call = TransferCallOf(in, parameters_.layer(layer_index), form_, layer_index);
  call.factor = parameters_.options().mixing_factor;
  call.teacher = teacher;
  call.grad_scale = grad_scale;
  const TransferResult result = TransferLayer(objective_, call);
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
  return result.loss;
}

double LayerTeacher::Teach(int64_t layer_index, const at::Tensor& x_BTD,
                           const std::vector<DocumentSpan>& spans, double grad_scale,
                           Gradients& gradients, at::Tensor& y_BHTd) const {
  const QkvTensors in = model_.Qkv(x_BTD, layer_index, nullptr);
  if (spans.empty()) return TeachSpan(layer_index, in, grad_scale, gradients, y_BHTd);
  double loss = 0;
  const auto tokens = static_cast<double>(x_BTD.size(0) * x_BTD.size(1));
  std::vector<at::Tensor> outputs(spans.size());
  for (size_t i = 0; i < spans.size(); ++i) {
    const double share = static_cast<double>(spans[i].count) / tokens;
    loss += share *
            TeachSpan(layer_index, Within(in, spans[i]), share * grad_scale, gradients, outputs[i]);
  }
  y_BHTd = JoinSpans(outputs, spans);
  return loss;
}

at::Tensor LayerTeacher::Output(int64_t layer_index, const at::Tensor& x_BTD,
                                const std::vector<DocumentSpan>& spans) const {
  const QkvTensors in = model_.Qkv(x_BTD, layer_index, nullptr);
  if (spans.empty()) return CausalSoftmax(in.q, in.k, in.v).out_BHTd;
  std::vector<at::Tensor> outputs;
  for (const DocumentSpan& span : spans) {
    const QkvTensors part = Within(in, span);
    outputs.push_back(CausalSoftmax(part.q, part.k, part.v).out_BHTd);
  }
  return JoinSpans(outputs, spans);
}

double LayerTeacher::Entropy(int64_t layer_index, const at::Tensor& x_BTD,
                             const std::vector<DocumentSpan>& spans) const {
  const QkvTensors in = model_.Qkv(x_BTD, layer_index, nullptr);
  const LayerRetention& retained = form_.RetainedIn(layer_index);
  const int64_t groups = in.k.size(1), rows = x_BTD.size(0) * x_BTD.size(1);
  double sum = spans.empty() ? SumOfConverted(EntropyOfRows(in), groups, retained) : 0;
  for (const DocumentSpan& span : spans) {
    sum += SumOfConverted(EntropyOfRows(Within(in, span)), groups, retained);
  }
  const auto converted = groups - static_cast<int64_t>(retained.size());
  const int64_t heads = std::max<int64_t>(1, converted) * (in.q.size(1) / groups);
  return sum / static_cast<double>(heads * rows);
}

}  // namespace tandem
