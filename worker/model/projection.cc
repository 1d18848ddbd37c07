#include "worker/model/projection.h"

#include <ATen/ops/mm.h>

namespace tandem {
namespace {

void AddMerged(const LoraPair& pair, const at::Tensor& weight_rows) {
  if (pair.defined()) weight_rows.addmm_(pair.b, pair.a, 1, pair.scale);
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

at::Tensor MergedQkv(const ModelConfig& config, const LayerWeights& weights,
                     const LayerParameters* lora) {
  if (lora == nullptr || !(lora->q.defined() || lora->k.defined() || lora->v.defined())) {
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
  if (lora == nullptr || !lora->o.defined()) return weights.o;
  at::Tensor merged = weights.o.clone();
  AddMerged(lora->o, merged);
  return merged;
}

LoraGradients LoraBackward(const LoraPair& pair, const at::Tensor& x, const at::Tensor& dy) {
  const at::Tensor inner = at::mm(x, pair.a.t());  // (N,r)
  const at::Tensor d_inner = at::mm(dy, pair.b);   // (N,r)
  return {at::mm(d_inner.t(), x).mul_(pair.scale), at::mm(dy.t(), inner).mul_(pair.scale)};
}

}  // namespace tandem
