#include "worker/train/lora_start.h"

#include <ATen/ops/empty.h>

#include <cmath>

#include "worker/data/philox.h"

namespace tandem {
namespace {

void Draw(const PhiloxStream& stream, int64_t projection, int64_t layer, const LoraPair& pair) {
  if (!pair.defined()) return;
  const double bound = 1.0 / std::sqrt(static_cast<double>(pair.a.size(1)));
  const at::Tensor drawn = at::empty(pair.a.sizes(), at::kFloat);
  float* a = drawn.mutable_data_ptr<float>();
  const int64_t count = drawn.numel();
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t word = stream.Words(i / 4, projection, layer)[static_cast<size_t>(i % 4)];
    const double uniform = static_cast<double>(word) * 0x1p-32;
    a[i] = static_cast<float>((2.0 * uniform - 1.0) * bound);
  }
  pair.a.copy_(drawn);
  pair.b.zero_();
}

}  // namespace

void DrawLoraStart(uint64_t seed, const Parameters& parameters) {
  const PhiloxStream stream(seed, /*stage_index=*/0, RandomPurpose::kLoraInit);
  for (int64_t i = 0; i < parameters.num_layers(); ++i) {
    const LayerParameters& layer = parameters.layer(i);
    Draw(stream, 0, i, layer.q);
    Draw(stream, 1, i, layer.k);
    Draw(stream, 2, i, layer.v);
    Draw(stream, 3, i, layer.o);
  }
}

}  // namespace tandem
