// A layer's projections, and the ways their rows become heads. With LoRA: lora_projection.h. Free
// of state; throws c10::Error on wrong shapes. Shapes as in llama.h; N = B T rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/model/llama.h"
#include "worker/model/lora_projection.h"

namespace tandem {

// (B,T,C) -> (B*T,C), a view.
at::Tensor AsRows(const at::Tensor& x_BTC);
// (B,H,T,d) -> (B*T,H*d); a view where the memory is (B,T,H,d).
at::Tensor HeadsAsRows(const at::Tensor& y_BHTd);
// Views into (B*T,(H+2K)d).
QkvTensors SplitQkv(const ModelConfig& config, const at::Tensor& rows, int64_t B, int64_t T);

// What the backward of the heads' norm needs; empty where the family has none (Qwen3 has).
struct HeadNormTape {
  at::Tensor q, k;                          // (B*T*H,d), (B*T*K,d) before the norm
  at::Tensor inverse_rms_q, inverse_rms_k;  // (B*T*H), (B*T*K)
};

// x (N,D) -> rows (N,(H+2K)d) of q, k and v before RoPE: projected, then q and k normed per head.
// `tape` may be null.
at::Tensor ProjectQkv(const ModelConfig& config, const LayerWeights& weights,
                      const LoraProjection& qkv, const at::Tensor& x, HeadNormTape* tape);
// d_rows, the gradient of ProjectQkv's rows, becomes that of the projection's, in place.
void HeadNormBackward(const ModelConfig& config, const LayerWeights& weights,
                      const HeadNormTape& tape, const at::Tensor& d_rows);

// sum + x W^T + bias, in own memory; an undefined bias is none.
at::Tensor AddProjected(const at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias);
// (N,D) -> (N,2I).
at::Tensor GateUp(const LayerWeights& weights, const at::Tensor& normed);

}  // namespace tandem
