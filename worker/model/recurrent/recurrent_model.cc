#include "worker/model/recurrent/recurrent_model.h"

#include <ATen/ops/cat.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>

namespace tandem {
namespace {

constexpr int64_t kPartTokens = 512;

RecurrentMaps MapsOf(const Parameters& parameters, int64_t layer_index) {
  const LayerParameters& layer = parameters.layer(layer_index);
  return {layer.feature_map_q, layer.feature_map_k, layer.feature_map_q_bias,
          layer.feature_map_k_bias, parameters.Gamma(layer_index)};
}

}  // namespace

int64_t RecurrentState::bytes() const {
  int64_t total = 0;
  for (const LayerMemory& layer : layers) total += layer.bytes();
  return total;
}

RecurrentModel::RecurrentModel(const Llama& model, const Parameters* parameters,
                               const RecurrentOptions& options)
    : model_(model), parameters_(parameters) {
  const c10::NoGradGuard no_grad;
  const bool is_base = options.mode == ComponentMode::kSoftmax;
  TORCH_CHECK(is_base || parameters != nullptr, "a converted model needs its parameters");
  if (is_base) parameters_ = nullptr;
  const ModelConfig& config = model.config();
  for (int64_t i = 0; i < config.num_layers; ++i) {
    layers_.emplace_back(options, is_base ? RecurrentMaps() : MapsOf(*parameters, i),
                         options.form.RetainedIn(i), config.num_heads, config.num_kv_heads);
  }
}

RecurrentState RecurrentModel::Start() const {
  RecurrentState state;
  state.layers.resize(layers_.size());
  return state;
}

at::Tensor RecurrentModel::Advance(const at::Tensor& ids_BT, bool all_logits,
                                   RecurrentState* state) const {
  const c10::NoGradGuard no_grad;
  TORCH_CHECK(ids_BT.dim() == 2 && ids_BT.size(1) >= 1,
              "ids must have shape (B,T) with T >= 1, not ", ids_BT.sizes());
  const int64_t B = ids_BT.size(0), T = ids_BT.size(1);
  if (state->position == 0) {
    for (LayerMemory& layer : state->layers) layer.prompt = T;
  }
  std::vector<at::Tensor> logits;
  for (int64_t begin = 0; begin < T; begin += kPartTokens) {
    const int64_t count = std::min(kPartTokens, T - begin);
    at::Tensor x = AdvancePart(ids_BT.narrow(1, begin, count), state);
    if (!all_logits && begin + count < T) continue;
    if (!all_logits) x = x.narrow(1, count - 1, 1);
    const at::Tensor normed = model_.FinalNorm(x.contiguous());
    logits.push_back(model_.Logits(normed.view({-1, normed.size(2)})).view({B, x.size(1), -1}));
  }
  return logits.size() == 1 ? logits.front() : at::cat(logits, 1);
}

at::Tensor RecurrentModel::AdvancePart(const at::Tensor& ids_BT, RecurrentState* state) const {
  at::Tensor x = model_.Embed(ids_BT);
  for (int64_t i = 0; i < model_.config().num_layers; ++i) {
    const LayerParameters* lora = parameters_ == nullptr ? nullptr : &parameters_->layer(i);
    const auto index = static_cast<size_t>(i);
    const QkvTensors in = model_.Qkv(x, i, lora, state->position);
    x = model_.FinishLayer(x, layers_[index].Attend(in.q, in.k, in.v, &state->layers[index]), i,
                           lora);
  }
  state->position += ids_BT.size(1);
  return x;
}

}  // namespace tandem
