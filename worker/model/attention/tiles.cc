#include "worker/model/attention/tiles.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>
#include <numeric>

namespace tandem::attention {
namespace {

constexpr int64_t kRows = 64;

// How far before a block's first row the earliest window key of the block may lie. Terraced: the
// window of row i starts at w ((i + pad)/w - 1) - pad, and nC + pad is anything that is pad modulo
// gcd(w, C).
int64_t Reach(const AttentionForm& form, int64_t rows, int64_t num_tokens) {
  if (form.window_kind == WindowKind::kSliding) return form.window - 1;
  const int64_t divisor = std::gcd(form.window, rows);
  return 2 * form.window - divisor + form.BlockPadding(num_tokens) % divisor;
}

// x (...,T,n) with rows before and after; x itself where there are none.
at::Tensor PadRows(const at::Tensor& x, int64_t before, int64_t after, double value) {
  return before + after == 0 ? x : at::constant_pad_nd(x, {0, 0, before, after}, value);
}

at::Tensor Positions(int64_t count, const at::Device& device) {
  return at::arange(count, at::TensorOptions().dtype(at::kLong).device(device));
}

}  // namespace

Tiles::Tiles(ComponentMode mode, const AttentionForm& form, int64_t mode_sinks, int64_t num_tokens)
    : tokens(num_tokens) {
  linear = mode == ComponentMode::kHybrid || mode == ComponentMode::kLinearOnly;
  softmax = mode != ComponentMode::kLinearOnly;
  band_softmax = mode == ComponentMode::kHybrid || mode == ComponentMode::kWindowOnly;
  rows = std::min(kRows, tokens);
  blocks = (tokens + rows - 1) / rows;
  if (band_softmax) {
    const int64_t needed = (Reach(form, rows, tokens) + rows - 1) / rows;
    lead = std::min(needed, blocks - 1) * rows;
  }
  width = lead + rows;
  if (softmax) sinks = std::min(band_softmax ? form.sinks : mode_sinks, tokens);
}

at::Tensor WindowStart(const at::Tensor& positions, const AttentionForm& form, int64_t num_tokens) {
  if (form.window_kind == WindowKind::kSliding) return positions.sub(form.window - 1);
  const int64_t padding = form.BlockPadding(num_tokens);
  return positions.add(padding).floor_divide(form.window).sub(1).mul(form.window).sub(padding);
}

TileMasks MakeMasks(const Tiles& t, const AttentionForm& form, const at::Device& device) {
  TileMasks masks;
  const at::Tensor i = Positions(t.padded(), device).view({t.blocks, 1, t.rows, 1});
  const at::Tensor j = Positions(t.blocks, device)
                           .mul(t.rows)
                           .sub(t.lead)
                           .view({t.blocks, 1, 1, 1})
                           .add(Positions(t.width, device));
  const at::Tensor causal = j.le(i).logical_and(j.ge(0));
  const at::Tensor start = WindowStart(i, form, t.tokens);
  if (t.band_softmax) masks.window_n1CW = causal.logical_and(j.ge(start));
  if (t.sinks > 0) {
    const at::Tensor sink = Positions(t.sinks, device);
    masks.sinks_n1Cs = sink.le(i);
    if (t.band_softmax) masks.sinks_n1Cs = masks.sinks_n1Cs.logical_and(sink.lt(start));
  }
  if (!t.linear) return masks;
  const bool outside = t.band_softmax && form.span == Span::kOutside && !form.HasDefect(t.tokens);
  masks.linear_n1CW = outside ? causal.logical_and(j.lt(start)).logical_and(j.ge(t.sinks)) : causal;
  masks.has_linear_n1C = (outside ? start.gt(t.sinks) : i.ge(0)).squeeze(-1);
  return masks;
}

at::Tensor FoldRows(const Tiles& t, const at::Tensor& x, int64_t groups, double pad) {
  const int64_t B = x.size(0), H = x.size(1), n = x.size(3);
  return PadRows(x, 0, t.padded() - t.tokens, pad)
      .reshape({B, groups, H / groups, t.blocks, t.rows, n})
      .permute({0, 1, 3, 2, 4, 5})
      .reshape({B * groups, t.blocks, H / groups, t.rows, n});
}

at::Tensor UnfoldRows(const Tiles& t, const at::Tensor& y, int64_t batch) {
  const int64_t groups = y.size(0) / batch, G = y.size(2), n = y.size(4);
  return y.reshape({batch, groups, t.blocks, G, t.rows, n})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({batch, t.padded(), groups * G, n})
      .narrow(1, 0, t.tokens)
      .transpose(1, 2);
}

at::Tensor Band(const Tiles& t, const at::Tensor& x, double pad) {
  return PadRows(x, t.lead, t.padded() - t.tokens, pad).flatten(0, 1).unfold(1, t.width, t.rows);
}

}  // namespace tandem::attention
