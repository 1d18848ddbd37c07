// What every task has: the sizes in tiles, and the sequence and heads it works on. Plain values.
#pragma once

#include "kernels/cpu/attention.h"
#include "kernels/cpu/tile.h"

namespace tandem::TANDEM_KERNEL_ISA {

struct TileSizes {
  explicit TileSizes(const AttentionSizes& s)
      : tokens(s.tokens),
        chunks((s.tokens + kTile - 1) / kTile),
        d(s.dim),
        padded(PaddedWidth(s.dim)),
        f(s.map_dim),
        features(2 * s.map_dim) {}

  int64_t RowsOf(int64_t chunk) const { return Smaller(kTile, tokens - chunk * kTile); }
  int64_t MapArea() const { return d * f; }

  int64_t tokens, chunks, d, padded, f, features;
};

// The (sequence, query head) pair of number bh.
struct TaskPlace {
  TaskPlace(const AttentionSizes& s, int64_t number)
      : bh(number),
        batch(number / s.heads),
        head(number % s.heads),
        kv_head(head / (s.heads / s.kv_heads)) {}

  template <class U>
  U* Sequence(const Rows<U>& rows, int64_t of_head) const {
    return rows.data + batch * rows.batch + of_head * rows.head;
  }

  int64_t bh, batch, head, kv_head;
};

// to = from * factor; may be the same tile.
template <class T>
inline void ScaleTile(const T* from, int64_t n, T factor, T* to) {
  for (int64_t i = 0; i < n; i += kLanes<T>) Store<T>(to + i, Load(from + i) * factor);
}

// q of a tile times 1/sqrt(d): scores are then plain products.
template <class T>
inline void ScaleQueries(const TileSizes& s, const T* from, T* to) {
  ScaleTile(from, s.d * kTile, T{1} / static_cast<T>(__builtin_sqrt(static_cast<double>(s.d))), to);
}

// sum [f][padded] += d_u x of one chunk of tokens; rows [kTile][padded] is scratch for x.
template <class T>
inline void AddMapGradient(const TileSizes& s, const T* d_u, const T* x, int64_t stride,
                           int64_t chunk, T* rows, T* sum) {
  LoadRowMajor(x, stride, chunk * kTile, s.tokens, s.d, s.padded, rows);
  Product<Into::kAdd>(sum, s.padded, {d_u, kTile, 1}, rows, s.padded, s.f, s.padded, kTile);
}

}  // namespace tandem::TANDEM_KERNEL_ISA
