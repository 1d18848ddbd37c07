// One converted layer with its own backward: what finetuning runs (method.md §5, §6.2).
//
// Forward keeps a tape per layer, backward consumes it. Written by hand because the base is frozen:
// no weight needs a gradient, so neither the normed inputs nor the MLP's inner activation are kept;
// they are recomputed or never needed; biases add to the forward alone. Only attention goes through
// autograd, by the operators' own backward. Memory per token and layer: 2D + (H+2K)d + 2Hd + 2I
// floats. Free of state, confined to the training thread; throws c10::Error on wrong shapes. Shapes
// as in llama.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/model/projection.h"

namespace tandem {

// Gradients by parameter name; they add up when a name comes again.
using GradientMap = std::map<std::string, at::Tensor>;
void AddGradient(GradientMap& gradients, const std::string& name, const at::Tensor& gradient);

// What attention is to a layer: called with tensors under autograd, returns (B,H,T,d).
struct AttentionInputs {
  QkvTensors qkv;
  at::Tensor w_q, w_k;  // feature maps (H,d,f), w_k (K,d,f) when tied
  at::Tensor b_q, b_k;  // their biases, where the map has them
  at::Tensor gamma;     // (H), activated
};
using AttentionFunction = std::function<at::Tensor(const AttentionInputs&)>;

struct LayerTape {
  at::Tensor x;                                    // (B,T,D) that came in
  at::Tensor x_middle;                             // (B*T,D) after attention
  at::Tensor inverse_rms_input, inverse_rms_post;  // (B*T)
  at::Tensor qkv_rows;         // (B*T,(H+2K)d) after RoPE, in the memory of q, k, v
  LoraProjection qkv, output;  // as the forward pass ran them
  HeadNormTape head_norm;
  at::Tensor gate_up;      // (B*T,2I), becomes its own gradient
  at::Tensor y;            // (B,H,T,d), the end of attention's graph
  AttentionInputs leaves;  // its beginning
  at::Tensor theta;        // leaf under gamma
};

struct LayerBackwardOptions {
  bool train_maps = false;  // gradients of maps and window factors too
  bool input_gradient = true;
};

// Hidden state after the layer; fills the tape.
at::Tensor ForwardLayer(const Llama& model, const Parameters& parameters, int64_t layer_index,
                        const at::Tensor& x_BTD, const AttentionFunction& attention,
                        const LayerBackwardOptions& options, LayerTape& tape);

// d_x (B,T,D) is the gradient of the layer's output; it is overwritten with that of its input when
// options.input_gradient. Adds the layer's parameter gradients to `gradients` and empties the tape.
void BackwardLayer(const Llama& model, int64_t layer_index, const at::Tensor& d_x_BTD,
                   const LayerBackwardOptions& options, LayerTape& tape, GradientMap& gradients);

}  // namespace tandem
