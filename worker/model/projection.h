// Projections with LoRA, and the ways a projection's rows become heads.
//
// LoRA is merged before the product: W + scale B A costs D*D*r, less than x A^T B^T over a batch of
// more than D rows, and leaves one product per projection in both directions. Free of state; throws
// c10::Error on wrong shapes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/model/llama.h"
#include "worker/model/parameters.h"

namespace tandem {

// (B,T,C) -> (B*T,C), a view.
at::Tensor AsRows(const at::Tensor& x_BTC);
// (B,H,T,d) -> (B*T,H*d); a view where the memory is (B,T,H,d).
at::Tensor HeadsAsRows(const at::Tensor& y_BHTd);
// Views into (B*T,(H+2K)d).
QkvTensors SplitQkv(const ModelConfig& config, const at::Tensor& rows, int64_t B, int64_t T);

// The layer's weights with LoRA added; the base's own tensor where there is none.
at::Tensor MergedQkv(const ModelConfig& config, const LayerWeights& weights,
                     const LayerParameters* lora);
at::Tensor MergedOutput(const LayerWeights& weights, const LayerParameters* lora);

// Gradients of one pair: y = x (W + scale B A)^T, given x (N,in) and dy (N,out).
struct LoraGradients {
  at::Tensor a, b;
};
LoraGradients LoraBackward(const LoraPair& pair, const at::Tensor& x, const at::Tensor& dy);

}  // namespace tandem
