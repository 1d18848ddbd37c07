#include "worker/model/evaluation_forward.h"

#include <ATen/ops/full.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <array>
#include <limits>
#include <utility>

#include "worker/model/projection.h"
#include "worker/model/recurrent/recurrent_attention.h"

namespace tandem {
namespace {

constexpr std::array<std::pair<ComponentMode, const char*>, 6> kModeNames = {{
    {ComponentMode::kSoftmax, "softmax"},
    {ComponentMode::kHybrid, "hybrid"},
    {ComponentMode::kWindowOnly, "window_only"},
    {ComponentMode::kLinearOnly, "linear_only"},
    {ComponentMode::kSinksOnly, "sinks_only"},
    {ComponentMode::kNone, "none"},
}};

// Sequence b gets what belongs to sequence (b+1) mod B.
at::Tensor OfNextSequence(const at::Tensor& t) {
  return at::roll(t, {-1}, {0});
}

RecurrentMaps MapsOf(const AttentionCall& call) {
  return {call.w_q, call.w_k, call.b_q, call.b_k, call.gamma};
}

// The hybrid with its sparse cache has no other form than the recurrent one.
at::Tensor AttendWithCache(const AttentionCall& call, const EvaluationOptions& options,
                           const at::Tensor& mass_BHT) {
  RecurrentOptions recurrent;
  recurrent.form = call.form;
  recurrent.swap_sums = options.state_swap;
  LayerMemory memory;
  return RecurrentAttention(recurrent, MapsOf(call), call.retained, call.q.size(1), call.k.size(1))
      .Attend(call.q, call.k, call.v, &memory, mass_BHT);
}

// The linear branch's mean share over the rows that count.
void FillMass(const at::Tensor& mass_BHT, int64_t from_row, at::Tensor* mass_H) {
  const int64_t rows = mass_BHT.size(2) - from_row;
  if (rows <= 0) return;
  mass_H->copy_(
      mass_BHT.narrow(2, from_row, rows).mean(std::array<int64_t, 2>{0, 2}, false, at::kDouble));
}

// Attention of one layer; mass_H, if given, receives the layer's mean linear share.
at::Tensor AttendLayer(const QkvTensors& in, const Parameters& parameters, int64_t layer_index,
                       const EvaluationOptions& options, at::Tensor* mass_H) {
  const LayerParameters& layer = parameters.layer(layer_index);
  AttentionCall call;
  call.q = in.q;
  call.k = in.k;
  call.v = in.v;
  call.w_q = layer.feature_map_q;
  call.w_k = layer.feature_map_k;
  call.b_q = layer.feature_map_q_bias;
  call.b_k = layer.feature_map_k_bias;
  call.gamma = parameters.Gamma(layer_index);
  call.form = options.attention;
  call.retained = options.attention.RetainedIn(layer_index);
  call.mode_sinks = options.evaluate_sinks;
  if (options.state_swap) {
    call.k_linear = OfNextSequence(in.k);
    call.v_linear = OfNextSequence(in.v);
  }
  if (options.mode == ComponentMode::kHybrid && call.form.cache_size > 0) {
    at::Tensor mass_BHT;
    if (mass_H != nullptr) {
      mass_BHT = at::zeros({in.q.size(0), in.q.size(1), in.q.size(2)}, in.q.options());
    }
    const at::Tensor y = AttendWithCache(call, options, mass_BHT);
    if (mass_H != nullptr) FillMass(mass_BHT, options.mass_from_row, mass_H);
    return y;
  }
  if (mass_H == nullptr) return Attend(options.mode, call);
  const HybridDiagnostics result = AttendWithMass(call);
  FillMass(result.linear_mass_BHT, options.mass_from_row, mass_H);
  return result.out_BHTd;
}

at::Tensor LastHiddenState(const Llama& model, const Parameters& parameters,
                           const at::Tensor& ids_BT, const EvaluationOptions& options,
                           at::Tensor* mass_MH) {
  const bool is_base = options.mode == ComponentMode::kSoftmax || options.base_weights;
  at::Tensor x = model.Embed(ids_BT);
  for (int64_t i = 0; i < model.config().num_layers; ++i) {
    const LayerParameters& layer = parameters.layer(i);
    const LayerParameters* lora = is_base ? nullptr : &layer;
    if (options.mode == ComponentMode::kNone) {
      x = model.FinishLayer(x, {}, i, lora);
      continue;
    }
    const QkvTensors qkv = model.Qkv(x, i, lora);
    at::Tensor mass_H;
    if (mass_MH != nullptr) mass_H = mass_MH->select(0, i);
    const at::Tensor y =
        AttendLayer(qkv, parameters, i, options, mass_MH != nullptr ? &mass_H : nullptr);
    x = model.FinishLayer(x, y, i, lora);
  }
  return x;
}

void CheckOptions(const at::Tensor& ids_BT, const EvaluationOptions& options) {
  const bool is_hybrid = options.mode == ComponentMode::kHybrid;
  TORCH_CHECK(ids_BT.dim() == 2 && ids_BT.size(1) >= 2, "ids must be (B,T) with T >= 2, not ",
              ids_BT.sizes());
  TORCH_CHECK(is_hybrid || !(options.state_swap || options.linear_mass),
              "state_swap and linear_mass belong to mode hybrid, not ",
              ComponentModeName(options.mode));
  TORCH_CHECK(!options.state_swap || ids_BT.size(0) >= 2,
              "state_swap needs at least 2 sequences, there is ", ids_BT.size(0));
}

}  // namespace

const char* ComponentModeName(ComponentMode mode) {
  for (const auto& [value, name] : kModeNames) {
    if (value == mode) return name;
  }
  TANDEM_CHECK_MSG(false, "component mode " + std::to_string(static_cast<int>(mode)));
  return "";
}

Result<ComponentMode> ComponentModeFromName(const std::string& name) {
  for (const auto& [value, known] : kModeNames) {
    if (name == known) return value;
  }
  return InvalidArgument(
      "component mode \"" + name +
      "\"; must be softmax, hybrid, window_only, linear_only, sinks_only or none");
}

EvaluationResult EvaluateSequences(const Llama& model, const Parameters& parameters,
                                   const at::Tensor& ids_BT, const EvaluationOptions& options) {
  CheckOptions(ids_BT, options);
  at::NoGradGuard no_gradients;
  EvaluationResult result;
  if (options.linear_mass) {
    result.linear_mass_MH = at::full({model.config().num_layers, model.config().num_heads},
                                     std::numeric_limits<double>::quiet_NaN(), at::kDouble);
  }
  const at::Tensor x = LastHiddenState(model, parameters, ids_BT, options,
                                       options.linear_mass ? &result.linear_mass_MH : nullptr);
  const NextTokenLosses next =
      ComputeNextTokenLosses(model, x, ids_BT, options.predictions, options.others);
  result.losses = next.losses_BT1.cpu();
  result.other_losses = next.other_losses.cpu();
  if (options.predictions) result.predicted_BT = next.predicted_BT.cpu();
  return result;
}

at::Tensor EvaluateLogits(const Llama& model, const Parameters& parameters,
                          const at::Tensor& ids_BT, const EvaluationOptions& options) {
  CheckOptions(ids_BT, options);
  at::NoGradGuard no_gradients;
  const at::Tensor x = LastHiddenState(model, parameters, ids_BT, options, nullptr);
  const at::Tensor logits = model.Logits(AsRows(model.FinalNorm(x))).cpu();
  return logits.view({ids_BT.size(0), ids_BT.size(1), -1});
}

}  // namespace tandem
