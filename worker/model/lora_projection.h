// LoraProjection: a frozen matrix with LoRA on its rows, y = x (W + scale B A)^T + bias, forward
// and backward (method.md §6.2).
//
// It goes one of two ways, chosen once by the base's type. On a fp32 base LoRA is merged before the
// product: W + scale B A costs D*D*r, less than x A^T B^T over a batch of more than D rows, and
// leaves one product in both directions. On a bf16 base the sum would be rounded to bf16 again, and
// an update below half a step of the weight, 2^-9 of it, would be lost whole: there x A^T B^T is
// added to the product.
//
// Immutable, and a snapshot: a merged weight does not follow later updates of its pairs. Copies
// share their tensors. Throws c10::Error on wrong shapes. Shapes: N rows of x; W (out,in); A (r,in)
// and B (rows,r) of each pair.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "worker/model/llama.h"
#include "worker/model/parameters.h"

namespace tandem {

class LoraProjection {
 public:
  // A pair and the rows of the weight that it is added to: first_row ... first_row + rows - 1.
  struct Part {
    const char* name;  // q_proj, k_proj, v_proj, o_proj
    int64_t first_row, rows;
    LoraPair pair;
  };
  using NamedGradients = std::vector<std::pair<std::string, at::Tensor>>;

  LoraProjection() = default;
  // Undefined bias: none. Parts without a pair are left out.
  LoraProjection(const at::Tensor& weight, const at::Tensor& bias, const std::vector<Part>& parts);

  // (N,in) -> (N,out), in own memory.
  at::Tensor Apply(const at::Tensor& x) const;
  // sum (N,out) + Apply(x), in own memory.
  at::Tensor AddTo(const at::Tensor& sum, const at::Tensor& x) const;
  // dy (N,out) -> (N,in): dy (W + scale B A), in own memory.
  at::Tensor InputGradient(const at::Tensor& dy) const;
  // Of every pair, given x (N,in) and dy (N,out): "q_proj.lora_A" (r,in), "q_proj.lora_B" (rows,r).
  NamedGradients PairGradients(const at::Tensor& x, const at::Tensor& dy) const;

  // What x is multiplied by, LoRA in it where it is merged; the base's own where nothing is.
  const at::Tensor& weight() const { return weight_; }

 private:
  void AddLora(const at::Tensor& x, const at::Tensor& y) const;

  at::Tensor weight_, bias_;
  std::vector<Part> parts_;
  bool is_merged_ = false;
};

// A layer's projections; lora null: the base alone. (N,D) -> (N,(H+2K)d) and (N,H d) -> (N,D).
LoraProjection QkvProjection(const ModelConfig& config, const LayerWeights& weights,
                             const LayerParameters* lora);
LoraProjection OutputProjection(const LayerWeights& weights, const LayerParameters* lora);

}  // namespace tandem
