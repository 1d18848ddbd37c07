#include "worker/model/lora_projection.h"

#include <ATen/ops/mm.h>

#include "worker/model/base_product.h"

namespace tandem {
namespace {

// The columns of y or dy that belong to a part, (N,rows).
at::Tensor ColumnsOf(const LoraProjection::Part& part, const at::Tensor& y) {
  return y.narrow(1, part.first_row, part.rows);
}

at::Tensor Merge(const at::Tensor& weight, const std::vector<LoraProjection::Part>& parts) {
  at::Tensor merged = weight.clone();
  for (const LoraProjection::Part& part : parts) {
    merged.narrow(0, part.first_row, part.rows)
        .addmm_(part.pair.b, part.pair.a, 1, part.pair.scale);
  }
  return merged;
}

}  // namespace

LoraProjection::LoraProjection(const at::Tensor& weight, const at::Tensor& bias,
                               const std::vector<Part>& parts)
    : weight_(weight), bias_(bias) {
  for (const Part& part : parts) {
    if (part.pair.defined()) parts_.push_back(part);
  }
  is_merged_ = !parts_.empty() && weight.scalar_type() == at::kFloat;
  if (is_merged_) weight_ = Merge(weight, parts_);
}

at::Tensor LoraProjection::Apply(const at::Tensor& x) const {
  at::Tensor y = TimesTransposed(x, weight_);
  if (bias_.defined()) y.add_(bias_);
  AddLora(x, y);
  return y;
}

at::Tensor LoraProjection::AddTo(const at::Tensor& sum, const at::Tensor& x) const {
  at::Tensor y = AddTimesTransposed(sum, x, weight_);
  if (bias_.defined()) y.add_(bias_);
  AddLora(x, y);
  return y;
}

// y += scale x A^T B^T, unless it is in the weight.
void LoraProjection::AddLora(const at::Tensor& x, const at::Tensor& y) const {
  if (is_merged_) return;
  for (const Part& part : parts_) {
    const LoraPair& pair = part.pair;
    ColumnsOf(part, y).add_(at::mm(at::mm(x, pair.a.t()), pair.b.t()), pair.scale);
  }
}

at::Tensor LoraProjection::InputGradient(const at::Tensor& dy) const {
  at::Tensor dx = Times(dy, weight_);
  if (is_merged_) return dx;
  for (const Part& part : parts_) {
    dx.addmm_(at::mm(ColumnsOf(part, dy), part.pair.b), part.pair.a, 1, part.pair.scale);
  }
  return dx;
}

LoraProjection::NamedGradients LoraProjection::PairGradients(const at::Tensor& x,
                                                             const at::Tensor& dy) const {
  NamedGradients gradients;
  for (const Part& part : parts_) {
    const LoraPair& pair = part.pair;
    const std::string name = part.name;
    const at::Tensor d_part = ColumnsOf(part, dy);
    const at::Tensor inner = at::mm(x, pair.a.t());     // (N,r)
    const at::Tensor d_inner = at::mm(d_part, pair.b);  // (N,r)
    gradients.emplace_back(name + ".lora_A", at::mm(d_inner.t(), x).mul_(pair.scale));
    gradients.emplace_back(name + ".lora_B", at::mm(d_part.t(), inner).mul_(pair.scale));
  }
  return gradients;
}

LoraProjection QkvProjection(const ModelConfig& config, const LayerWeights& weights,
                             const LayerParameters* lora) {
  if (lora == nullptr) return {weights.qkv, weights.qkv_bias, {}};
  const int64_t queries = config.num_heads * config.head_dim;
  const int64_t keys = config.num_kv_heads * config.head_dim;
  return {weights.qkv,
          weights.qkv_bias,
          {{"q_proj", 0, queries, lora->q},
           {"k_proj", queries, keys, lora->k},
           {"v_proj", queries + keys, keys, lora->v}}};
}

LoraProjection OutputProjection(const LayerWeights& weights, const LayerParameters* lora) {
  if (lora == nullptr) return {weights.o, weights.o_bias, {}};
  return {weights.o, weights.o_bias, {{"o_proj", 0, weights.o.size(0), lora->o}}};
}

}  // namespace tandem
