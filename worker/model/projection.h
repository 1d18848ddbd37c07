// Projections with LoRA, and the ways a projection's rows become heads.
//
// LoRA on a fp32 base is merged before the product: W + scale B A costs D*D*r, less than x A^T B^T
// over a batch of more than D rows, and leaves one product per projection in both directions. On a
// bf16 base the sum would be rounded to bf16 again, and an update below half a step of the weight,
// 2^-9 of it, would be lost whole: there x A^T B^T is added to the product. Free of state; throws
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

// Is LoRA part of what MergedQkv and MergedOutput give?
bool MergesLora(const LayerWeights& weights);
// The layer's weights with LoRA merged; the base's own tensor where there is none, or none merged.
at::Tensor MergedQkv(const ModelConfig& config, const LayerWeights& weights,
                     const LayerParameters* lora);
at::Tensor MergedOutput(const LayerWeights& weights, const LayerParameters* lora);

// What the backward of the heads' norm needs; empty where the family has none (Qwen3 has).
struct HeadNormTape {
  at::Tensor q, k;                          // (B*T*H,d), (B*T*K,d) before the norm
  at::Tensor inverse_rms_q, inverse_rms_k;  // (B*T*H), (B*T*K)
};

// Rows ((N, (H+2K)d)) of q, k and v before RoPE: x W^T + bias with LoRA, then q and k normed per
// head. `lora` and `tape` may be null.
at::Tensor ProjectQkv(const ModelConfig& config, const LayerWeights& weights,
                      const at::Tensor& merged_qkv, const LayerParameters* lora,
                      const at::Tensor& x, HeadNormTape* tape);
// sum + y W_o^T + bias with LoRA; `lora` may be null.
at::Tensor AddOutput(const LayerWeights& weights, const at::Tensor& merged_output,
                     const LayerParameters* lora, const at::Tensor& sum, const at::Tensor& y);
// d_rows, the gradient of ProjectQkv's rows, becomes that of x W^T, in place.
void HeadNormBackward(const ModelConfig& config, const LayerWeights& weights,
                      const HeadNormTape& tape, const at::Tensor& d_rows);

// sum + x W^T + bias, in own memory; an undefined bias is none.
at::Tensor AddProjected(const at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias);
// (N,D) -> (N,2I).
at::Tensor GateUp(const LayerWeights& weights, const at::Tensor& normed);

// Gradients of one pair: y = x (W + scale B A)^T, given x (N,in) and dy (N,out).
struct LoraGradients {
  at::Tensor a, b;
};
LoraGradients LoraBackward(const LoraPair& pair, const at::Tensor& x, const at::Tensor& dy);
// d_x += scale dy B A: the pair's part of the input's gradient where it is not merged.
void AddLoraInputGradient(const LoraPair& pair, const at::Tensor& dy, const at::Tensor& d_x);

}  // namespace tandem
