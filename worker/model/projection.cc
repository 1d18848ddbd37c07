#include "worker/model/projection.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>

#include "worker/model/base_product.h"
#include "worker/model/tensor_rows.h"

namespace tandem {
namespace {

void AddMerged(const LoraPair& pair, const at::Tensor& weight_rows) {
  if (pair.defined()) weight_rows.addmm_(pair.b, pair.a, 1, pair.scale);
}

// x W^T + bias.
at::Tensor Project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor rows = TimesTransposed(x, weight);
  if (bias.defined()) rows.add_(bias);
  return rows;
}

// rows += scale x A^T B^T
void AddLora(const LoraPair& pair, const at::Tensor& x, const at::Tensor& rows) {
  if (pair.defined()) rows.add_(at::mm(at::mm(x, pair.a.t()), pair.b.t()), pair.scale);
}

// Columns [begin, begin + heads d) of rows as (N heads, d), in own memory.
at::Tensor HeadRows(const at::Tensor& rows, int64_t begin, int64_t heads, int64_t d) {
  return rows.narrow(1, begin, heads * d).contiguous().view({-1, d});
}

void PutHeadRows(const at::Tensor& rows, int64_t begin, const at::Tensor& head_rows) {
  const int64_t N = rows.size(0);
  rows.narrow(1, begin, head_rows.numel() / N).copy_(head_rows.view({N, -1}));
}

}  // namespace

at::Tensor AsRows(const at::Tensor& x_BTC) {
  return x_BTC.view({-1, x_BTC.size(-1)});
}

at::Tensor HeadsAsRows(const at::Tensor& y_BHTd) {
  const int64_t rows = y_BHTd.size(0) * y_BHTd.size(2);
  return y_BHTd.transpose(1, 2).reshape({rows, y_BHTd.size(1) * y_BHTd.size(3)});
}

QkvTensors SplitQkv(const ModelConfig& config, const at::Tensor& rows, int64_t B, int64_t T) {
  const int64_t H = config.num_heads, K = config.num_kv_heads;
  const at::Tensor heads = rows.view({B, T, H + 2 * K, config.head_dim}).transpose(1, 2);
  return {heads.narrow(1, 0, H), heads.narrow(1, H, K), heads.narrow(1, H + K, K)};
}

bool MergesLora(const LayerWeights& weights) {
  return weights.qkv.scalar_type() == at::kFloat;
}

at::Tensor MergedQkv(const ModelConfig& config, const LayerWeights& weights,
                     const LayerParameters* lora) {
  if (lora == nullptr || !MergesLora(weights) ||
      !(lora->q.defined() || lora->k.defined() || lora->v.defined())) {
    return weights.qkv;
  }
  const int64_t queries = config.num_heads * config.head_dim;
  const int64_t keys = config.num_kv_heads * config.head_dim;
  at::Tensor merged = weights.qkv.clone();
  AddMerged(lora->q, merged.narrow(0, 0, queries));
  AddMerged(lora->k, merged.narrow(0, queries, keys));
  AddMerged(lora->v, merged.narrow(0, queries + keys, keys));
  return merged;
}

at::Tensor MergedOutput(const LayerWeights& weights, const LayerParameters* lora) {
  if (lora == nullptr || !MergesLora(weights) || !lora->o.defined()) return weights.o;
  at::Tensor merged = weights.o.clone();
  AddMerged(lora->o, merged);
  return merged;
}

at::Tensor ProjectQkv(const ModelConfig& config, const LayerWeights& weights,
                      const at::Tensor& merged_qkv, const LayerParameters* lora,
                      const at::Tensor& x, HeadNormTape* tape) {
  at::Tensor rows = Project(x, merged_qkv, weights.qkv_bias);
  const int64_t d = config.head_dim, queries = config.num_heads * d, keys = config.num_kv_heads * d;
  if (lora != nullptr && !MergesLora(weights)) {
    AddLora(lora->q, x, rows.narrow(1, 0, queries));
    AddLora(lora->k, x, rows.narrow(1, queries, keys));
    AddLora(lora->v, x, rows.narrow(1, queries + keys, keys));
  }
  if (!config.qk_norm) return rows;
  const at::Tensor q = HeadRows(rows, 0, config.num_heads, d);
  const at::Tensor k = HeadRows(rows, queries, config.num_kv_heads, d);
  const NormedRows normed_q = RmsNorm(q, weights.q_norm, config.rms_norm_eps);
  const NormedRows normed_k = RmsNorm(k, weights.k_norm, config.rms_norm_eps);
  PutHeadRows(rows, 0, normed_q.y);
  PutHeadRows(rows, queries, normed_k.y);
  if (tape != nullptr) *tape = {q, k, normed_q.inverse_rms, normed_k.inverse_rms};
  return rows;
}

at::Tensor AddOutput(const LayerWeights& weights, const at::Tensor& merged_output,
                     const LayerParameters* lora, const at::Tensor& sum, const at::Tensor& y) {
  at::Tensor result = AddProjected(sum, y, merged_output, weights.o_bias);
  if (lora != nullptr && !MergesLora(weights)) AddLora(lora->o, y, result);
  return result;
}

void HeadNormBackward(const ModelConfig& config, const LayerWeights& weights,
                      const HeadNormTape& tape, const at::Tensor& d_rows) {
  if (!config.qk_norm) return;
  const int64_t d = config.head_dim, queries = config.num_heads * d;
  const at::Tensor d_q = at::zeros_like(tape.q), d_k = at::zeros_like(tape.k);
  AddRmsNormBackward(HeadRows(d_rows, 0, config.num_heads, d), tape.q, weights.q_norm,
                     tape.inverse_rms_q, d_q);
  AddRmsNormBackward(HeadRows(d_rows, queries, config.num_kv_heads, d), tape.k, weights.k_norm,
                     tape.inverse_rms_k, d_k);
  PutHeadRows(d_rows, 0, d_q);
  PutHeadRows(d_rows, queries, d_k);
}

at::Tensor AddProjected(const at::Tensor& sum, const at::Tensor& x, const at::Tensor& weight,
                        const at::Tensor& bias) {
  at::Tensor result = AddTimesTransposed(sum, x, weight);
  if (bias.defined()) result.add_(bias);
  return result;
}

at::Tensor GateUp(const LayerWeights& weights, const at::Tensor& normed) {
  return Project(normed, weights.gate_up, weights.gate_up_bias);
}

LoraGradients LoraBackward(const LoraPair& pair, const at::Tensor& x, const at::Tensor& dy) {
  const at::Tensor inner = at::mm(x, pair.a.t());  // (N,r)
  const at::Tensor d_inner = at::mm(dy, pair.b);   // (N,r)
  return {at::mm(d_inner.t(), x).mul_(pair.scale), at::mm(dy.t(), inner).mul_(pair.scale)};
}

void AddLoraInputGradient(const LoraPair& pair, const at::Tensor& dy, const at::Tensor& d_x) {
  if (pair.defined()) d_x.addmm_(at::mm(dy, pair.b), pair.a, 1, pair.scale);
}

}  // namespace tandem
