#include "worker/model/layer_backward.h"

#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "worker/model/base_product.h"
#include "worker/model/tensor_rows.h"

namespace tandem {
namespace {

at::Tensor Leaf(const at::Tensor& t, bool needs_gradient) {
  return t.defined() ? t.detach().set_requires_grad(needs_gradient) : t;
}

std::string LayerName(int64_t layer_index, const std::string& leaf) {
  return "layers." + std::to_string(layer_index) + "." + leaf;
}

void RunAttention(const Parameters& parameters, int64_t layer_index, const QkvTensors& qkv,
                  const AttentionFunction& attention, const LayerBackwardOptions& options,
                  LayerTape& tape) {
  const LayerParameters& layer = parameters.layer(layer_index);
  at::AutoGradMode gradients_on(true);
  AttentionInputs& in = tape.leaves;
  in.qkv = {Leaf(qkv.q, true), Leaf(qkv.k, true), Leaf(qkv.v, true)};
  in.w_q = Leaf(layer.feature_map_q, options.train_maps);
  in.w_k = Leaf(layer.feature_map_k, options.train_maps);
  in.b_q = Leaf(layer.feature_map_q_bias, options.train_maps);
  in.b_k = Leaf(layer.feature_map_k_bias, options.train_maps);
  tape.theta = Leaf(layer.window_factor, options.train_maps);
  in.gamma = ActivateWindowFactor(tape.theta, parameters.options().mixing_factor);
  tape.y = attention(in);
}

void AddLoraGradients(const LoraProjection& projection, int64_t layer_index, const at::Tensor& x,
                      const at::Tensor& dy, GradientMap& gradients) {
  for (const auto& [name, gradient] : projection.PairGradients(x, dy)) {
    AddGradient(gradients, LayerName(layer_index, name), gradient);
  }
}

// d of the attention output's rows -> rows of dq, dk, dv in one matrix, RoPE turned back.
at::Tensor BackwardAttention(const ModelConfig& config, const Llama::Rotary& rotary,
                             int64_t layer_index, const at::Tensor& d_y_BHTd,
                             const LayerBackwardOptions& options, LayerTape& tape,
                             GradientMap& gradients) {
  std::vector<at::Tensor> inputs = {tape.leaves.qkv.q, tape.leaves.qkv.k, tape.leaves.qkv.v};
  if (options.train_maps) {
    inputs.insert(inputs.end(), {tape.leaves.w_q, tape.leaves.w_k, tape.theta});
    if (tape.leaves.b_q.defined()) {
      inputs.insert(inputs.end(), {tape.leaves.b_q, tape.leaves.b_k});
    }
  }
  const std::vector<at::Tensor> grads = torch::autograd::grad(
      {tape.y}, inputs, {d_y_BHTd}, /*retain_graph=*/false, /*create_graph=*/false,
      /*allow_unused=*/true);
  if (options.train_maps) {
    constexpr const char* kNames[] = {"feature_map_q", "feature_map_k", "window_factor",
                                      "feature_map_q_bias", "feature_map_k_bias"};
    for (size_t i = 3; i < grads.size(); ++i) {  // a mode that reads no such parameter gives none
      if (grads[i].defined()) {
        AddGradient(gradients, LayerName(layer_index, kNames[i - 3]), grads[i]);
      }
    }
  }
  at::Tensor rows = at::empty_like(tape.qkv_rows);
  const QkvTensors parts = SplitQkv(config, rows, tape.x.size(0), tape.x.size(1));
  const at::Tensor targets[] = {parts.q, parts.k, parts.v};
  for (size_t i = 0; i < 3; ++i) {  // linear_only: q and k reach the loss through the maps alone
    if (grads[i].defined()) {
      targets[i].copy_(grads[i]);
    } else {
      targets[i].zero_();
    }
  }
  Rotate(rows, config.num_heads + config.num_kv_heads, {rotary.cos, rotary.sin}, true);
  return rows;
}

}  // namespace

void AddGradient(GradientMap& gradients, const std::string& name, const at::Tensor& gradient) {
  const auto [place, is_new] = gradients.try_emplace(name, gradient);
  if (!is_new) place->second = place->second.add(gradient);
}

at::Tensor ForwardLayer(const Llama& model, const Parameters& parameters, int64_t layer_index,
                        const at::Tensor& x_BTD, const AttentionFunction& attention,
                        const LayerBackwardOptions& options, LayerTape& tape) {
  const ModelConfig& config = model.config();
  const LayerWeights& w = model.layer(layer_index);
  const LayerParameters* lora = &parameters.layer(layer_index);
  at::NoGradGuard no_gradients;
  tape.x = x_BTD;
  NormedRows normed = RmsNorm(x_BTD, w.input_norm, config.rms_norm_eps);
  tape.inverse_rms_input = normed.inverse_rms;
  tape.qkv = QkvProjection(config, w, lora);
  tape.qkv_rows = ProjectQkv(config, w, tape.qkv, AsRows(normed.y), &tape.head_norm);
  const Llama::Rotary rotary = model.RotaryTables(x_BTD.size(1));
  Rotate(tape.qkv_rows, config.num_heads + config.num_kv_heads, {rotary.cos, rotary.sin}, false);
  RunAttention(parameters, layer_index,
               SplitQkv(config, tape.qkv_rows, x_BTD.size(0), x_BTD.size(1)), attention, options,
               tape);

  tape.output = OutputProjection(w, lora);
  tape.x_middle = tape.output.AddTo(AsRows(x_BTD), HeadsAsRows(tape.y.detach()));
  normed = RmsNorm(tape.x_middle, w.post_norm, config.rms_norm_eps);
  tape.inverse_rms_post = normed.inverse_rms;
  tape.gate_up = GateUp(w, normed.y);
  return AddProjected(tape.x_middle, SwiGlu(tape.gate_up), w.down, w.down_bias).view(x_BTD.sizes());
}

void BackwardLayer(const Llama& model, int64_t layer_index, const at::Tensor& d_x_BTD,
                   const LayerBackwardOptions& options, LayerTape& tape, GradientMap& gradients) {
  const ModelConfig& config = model.config();
  const LayerWeights& w = model.layer(layer_index);
  at::NoGradGuard no_gradients;
  const at::Tensor d_x = AsRows(d_x_BTD);
  SwiGluBackward(tape.gate_up, Times(d_x, w.down));
  AddRmsNormBackward(Times(tape.gate_up, w.gate_up), tape.x_middle, w.post_norm,
                     tape.inverse_rms_post, d_x);

  const at::Tensor y_rows = HeadsAsRows(tape.y.detach());
  AddLoraGradients(tape.output, layer_index, y_rows, d_x, gradients);
  const int64_t B = d_x_BTD.size(0), T = d_x_BTD.size(1);
  const at::Tensor d_y = tape.output.InputGradient(d_x)
                             .view({B, T, config.num_heads, config.head_dim})
                             .transpose(1, 2);
  const at::Tensor d_rows =
      BackwardAttention(config, model.RotaryTables(T), layer_index, d_y, options, tape, gradients);
  HeadNormBackward(config, w, tape.head_norm, d_rows);

  const at::Tensor normed = AsRows(RmsNormAgain(tape.x, w.input_norm, tape.inverse_rms_input));
  AddLoraGradients(tape.qkv, layer_index, normed, d_rows, gradients);
  if (options.input_gradient) {
    AddRmsNormBackward(tape.qkv.InputGradient(d_rows), AsRows(tape.x), w.input_norm,
                       tape.inverse_rms_input, d_x);
  }
  tape = {};
}

}  // namespace tandem
