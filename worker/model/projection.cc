#include "worker/model/projection.h"

#include <ATen/ops/zeros_like.h>

#include "worker/model/base_product.h"
#include "worker/model/tensor_rows.h"

namespace tandem {
namespace {

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

at::Tensor ProjectQkv(const ModelConfig& config, const LayerWeights& weights,
                      const LoraProjection& qkv, const at::Tensor& x, HeadNormTape* tape) {
  at::Tensor rows = qkv.Apply(x);
  if (!config.qk_norm) return rows;
  const int64_t d = config.head_dim, queries = config.num_heads * d;
  const at::Tensor q = HeadRows(rows, 0, config.num_heads, d);
  const at::Tensor k = HeadRows(rows, queries, config.num_kv_heads, d);
  const NormedRows normed_q = RmsNorm(q, weights.q_norm, config.rms_norm_eps);
  const NormedRows normed_k = RmsNorm(k, weights.k_norm, config.rms_norm_eps);
  PutHeadRows(rows, 0, normed_q.y);
  PutHeadRows(rows, queries, normed_k.y);
  if (tape != nullptr) *tape = {q, k, normed_q.inverse_rms, normed_k.inverse_rms};
  return rows;
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
  at::Tensor rows = TimesTransposed(normed, weights.gate_up);
  if (weights.gate_up_bias.defined()) rows.add_(weights.gate_up_bias);
  return rows;
}

}  // namespace tandem
