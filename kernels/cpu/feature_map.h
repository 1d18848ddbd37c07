// The Hedgehog map on one tile, forward and backward (method.md §2, §5). Lanes are tokens, so both
// softmaxes run down the rows and need no reduction across a vector. Confined to one task; cannot
// fail.
#pragma once

#include "kernels/cpu/attention.h"
#include "kernels/cpu/tile.h"

namespace tandem::TANDEM_KERNEL_ISA {

constexpr double kFeatureFloor = 1e-12;

// phi[2f][kTile] = max([softmax(u), softmax(-u)], 1e-12), u = W^T x, x[d][kTile], W (d,f). One NaN
// among a token's u makes all its features NaN, through the sums.
template <class T>
inline void MapTile(const T* x, const T* w, int64_t d, int64_t f, T* phi) {
  constexpr int L = kLanes<T>;
  Product<Into::kSet>(phi, kTile, {w, 1, f}, x, kTile, f, kTile, d);
  T* negative = phi + f * kTile;
  const Vec<T> floor = Splat(static_cast<T>(kFeatureFloor));
  for (int i = 0; i < kTile; i += L) {
    Vec<T> top = Load(phi + i), bottom = top;
    for (int64_t r = 1; r < f; ++r) {
      const Vec<T> u = Load(phi + r * kTile + i);
      top = Max(top, u);
      bottom = Min(bottom, u);
    }
    Vec<T> sum{}, negative_sum{};
    for (int64_t r = 0; r < f; ++r) {
      const Vec<T> u = Load(phi + r * kTile + i);
      const Vec<T> e = Exp(u - top), n = Exp(bottom - u);
      sum += e;
      negative_sum += n;
      Store<T>(phi + r * kTile + i, e);
      Store<T>(negative + r * kTile + i, n);
    }
    const Vec<T> scale = Splat(T{1}) / sum, negative_scale = Splat(T{1}) / negative_sum;
    for (int64_t r = 0; r < f; ++r) {
      Store<T>(phi + r * kTile + i, Max(floor, Load(phi + r * kTile + i) * scale));
      Store<T>(negative + r * kTile + i,
               Max(floor, Load(negative + r * kTile + i) * negative_scale));
    }
  }
}

// h = phi * d_phi of one half, zero where the clamp was active; returns its sum over features.
template <class T>
inline Vec<T> MapHalfSum(const T* phi, const T* d_phi, int64_t f) {
  const Vec<T> floor = Splat(static_cast<T>(kFeatureFloor));
  Vec<T> sum{};
  for (int64_t r = 0; r < f; ++r) {
    const Vec<T> p = Load(phi + r * kTile);
    sum += p <= floor ? Vec<T>{} : p * Load(d_phi + r * kTile);
  }
  return sum;
}

// d_u[f][kTile] from d_phi[2f][kTile]: d_u = pi+ (d+ - <pi+,d+>) - pi- (d- - <pi-,d->).
template <class T>
inline void MapBackwardTile(const T* phi, const T* d_phi, int64_t f, T* d_u) {
  constexpr int L = kLanes<T>;
  const Vec<T> floor = Splat(static_cast<T>(kFeatureFloor));
  const int64_t half = f * kTile;
  for (int i = 0; i < kTile; i += L) {
    const Vec<T> mean = MapHalfSum(phi + i, d_phi + i, f);
    const Vec<T> negative_mean = MapHalfSum(phi + half + i, d_phi + half + i, f);
    for (int64_t r = 0; r < f; ++r) {
      const int64_t at = r * kTile + i;
      const Vec<T> p = Load(phi + at), n = Load(phi + half + at);
      const Vec<T> up = p <= floor ? Vec<T>{} : p * (Load(d_phi + at) - mean);
      const Vec<T> down = n <= floor ? Vec<T>{} : n * (Load(d_phi + half + at) - negative_mean);
      Store<T>(d_u + at, up - down);
    }
  }
}

// d_w (d,f) = transpose of the accumulated [f][padded] sum_i d_u x.
template <class T>
inline void StoreMapGradient(const T* sum, int64_t padded, int64_t d, int64_t f, T* d_w) {
  Transpose(sum, padded, d_w, f, f, d);
}

}  // namespace tandem::TANDEM_KERNEL_ISA
