// Tiles of 64 tokens and the products between them.
//
// A feature-major tile is [features][kTile] with the tokens in the lanes; a row-major tile is
// [kTile][padded features]. All tiles are whole: rows and lanes past the end of a sequence are
// zero. Confined to one task; cannot fail.
#pragma once

#include "kernels/cpu/vector.h"

namespace tandem::TANDEM_KERNEL_ISA {

constexpr int kTile = 64;

// The score of a pair that is not there.
constexpr double kMasked = -1e30;
// A weight below exp(-80) of its row's largest is 0: fp32 could not tell, and denormal numbers are
// slow.
constexpr double kNegligible = -80;

inline int64_t RoundUp(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}
inline int64_t Smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t Larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
// A row-major tile's width: d padded so that every row is whole vectors on any instruction set.
inline int64_t PaddedWidth(int64_t d) {
  return RoundUp(d, 16);
}

template <class T>
inline void Zero(T* p, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = 0;
}

// Scratch is cut from one block; every piece starts on a cache line.
template <class T>
class Carver {
 public:
  explicit Carver(T* base) : base_(base) {}
  T* Take(int64_t n) {
    T* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += RoundUp(n, 16);
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  T* base_;
  int64_t used_ = 0;
};

// A matrix to read by broadcast: element (m, k) at data[m * row + k * step]; a transpose is a swap
// of strides.
template <class T>
struct Broadcast {
  const T* data;
  int64_t row, step;
};

enum class Into { kSet, kAdd, kSubtract };

template <class T, int MR, int NR, Into kInto>
inline void ProductBlock(const Broadcast<T>& a, const T* b, int64_t ldb, T* c, int64_t ldc,
                         int64_t depth) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[MR][NR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) sum[m][n] = Vec<T>{};
  const T* pa = a.data;
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> row[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) row[n] = Load(b + n * L);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
      const Vec<T> x = Splat(pa[m * a.row]);
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n) sum[m][n] += x * row[n];
    }
    pa += a.step;
    b += ldb;
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) {
      T* to = c + m * ldc + n * L;
      if constexpr (kInto == Into::kSet) Store<T>(to, sum[m][n]);
      if constexpr (kInto == Into::kAdd) Store<T>(to, Load(to) + sum[m][n]);
      if constexpr (kInto == Into::kSubtract) Store<T>(to, Load(to) - sum[m][n]);
    }
}

// c[rows][columns] (=, +=, -=) a[rows][depth] b[depth][columns]. rows a multiple of 4, columns of
// the vector's lanes.
template <Into kInto, class T>
inline void Product(T* c, int64_t ldc, const Broadcast<T>& a, const T* b, int64_t ldb, int64_t rows,
                    int64_t columns, int64_t depth) {
  constexpr int L = kLanes<T>;
  constexpr int kMR = 4;
  constexpr int kNR = kVectorBytes == 64 ? 4 : 2;
  int64_t n = 0;
  for (; n + kNR * L <= columns; n += kNR * L)
    for (int64_t m = 0; m < rows; m += kMR)
      ProductBlock<T, kMR, kNR, kInto>({a.data + m * a.row, a.row, a.step}, b + n, ldb,
                                       c + m * ldc + n, ldc, depth);
  for (; n < columns; n += L)
    for (int64_t m = 0; m < rows; m += kMR)
      ProductBlock<T, kMR, 1, kInto>({a.data + m * a.row, a.row, a.step}, b + n, ldb,
                                     c + m * ldc + n, ldc, depth);
}

// Transposes an L x L block: log2(L) rounds of perfect shuffles.
template <class T>
inline void TransposeBlock(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int L = kLanes<T>;
  IntVec<T> low, high;
  for (int i = 0; i < L; ++i) {
    low[i] = i / 2 + (i % 2) * L;
    high[i] = L / 2 + i / 2 + (i % 2) * L;
  }
  Vec<T> rows[L], next[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) rows[i] = Load(from + i * from_stride);
#pragma GCC unroll 4
  for (int width = 1; width < L; width *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < L / 2; ++i) {
      next[2 * i] = __builtin_shuffle(rows[i], rows[i + L / 2], low);
      next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + L / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) rows[i] = next[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) Store<T>(to + i * to_stride, rows[i]);
}

// to[columns][rows] = from[rows][columns] transposed; any sizes.
template <class T>
inline void Transpose(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows,
                      int64_t columns) {
  constexpr int64_t L = kLanes<T>;
  const int64_t whole_rows = rows / L * L, whole_columns = columns / L * L;
  for (int64_t r = 0; r < whole_rows; r += L)
    for (int64_t c = 0; c < whole_columns; c += L)
      TransposeBlock(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c)
      to[c * to_stride + r] = from[r * from_stride + c];
}

// Tokens [first, first + kTile) of a sequence of `tokens`, as [width][kTile]; zero past the end.
template <class T>
inline void LoadFeatureMajor(const T* sequence, int64_t stride, int64_t first, int64_t tokens,
                             int64_t width, T* tile) {
  const int64_t rows = Smaller(kTile, tokens - first);
  if (rows < kTile) Zero(tile, width * kTile);
  Transpose(sequence + first * stride, stride, tile, kTile, rows, width);
}

// The same as [kTile][padded], columns past width zero.
template <class T>
inline void LoadRowMajor(const T* sequence, int64_t stride, int64_t first, int64_t tokens,
                         int64_t width, int64_t padded, T* tile) {
  const int64_t rows = Smaller(kTile, tokens - first);
  if (rows < kTile || width < padded) Zero(tile, kTile * padded);
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = sequence + (first + r) * stride;
    for (int64_t c = 0; c < width; ++c) tile[r * padded + c] = from[c];
  }
}

// Writes a feature-major tile to its tokens.
template <class T>
inline void StoreFeatureMajor(const T* tile, int64_t first, int64_t tokens, int64_t width,
                              T* sequence, int64_t stride) {
  Transpose(tile, kTile, sequence + first * stride, stride, width, Smaller(kTile, tokens - first));
}

// Writes a row-major tile to its tokens.
template <class T>
inline void StoreRowMajor(const T* tile, int64_t padded, int64_t first, int64_t tokens,
                          int64_t width, T* sequence, int64_t stride) {
  const int64_t rows = Smaller(kTile, tokens - first);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < width; ++c) sequence[(first + r) * stride + c] = tile[r * padded + c];
}

// Lane numbers 0 .. L-1 as elements: masks are comparisons with them.
template <class T>
inline Vec<T> LaneNumbers() {
  Vec<T> lanes;
  for (int i = 0; i < kLanes<T>; ++i) lanes[i] = static_cast<T>(i);
  return lanes;
}

// row[lane] = fill outside lanes [low, high).
template <class T>
inline void KeepLanes(T* row, int64_t low, int64_t high, T fill) {
  if (low <= 0 && high >= kTile) return;
  constexpr int L = kLanes<T>;
  const Vec<T> lanes = LaneNumbers<T>();
  const Vec<T> from = Splat(static_cast<T>(low)), to = Splat(static_cast<T>(Smaller(high, kTile)));
  for (int i = 0; i < kTile; i += L) {
    const Vec<T> lane = lanes + static_cast<T>(i);
    const Vec<T> kept = lane >= from ? Load(row + i) : Splat(fill);
    Store<T>(row + i, lane < to ? kept : Splat(fill));
  }
}

// sums[lane] (+)= sum_r weights[r] tile[r][lane]
template <class T>
inline void AddWeightedRows(const T* tile, const T* weights, int64_t rows, T* sums) {
  constexpr int L = kLanes<T>;
  for (int i = 0; i < kTile; i += L) {
    Vec<T> sum = Load(sums + i);
    for (int64_t r = 0; r < rows; ++r) sum += Load(tile + r * kTile + i) * weights[r];
    Store<T>(sums + i, sum);
  }
}

// sums[lane] += sum_r a[r][lane] b[r][lane]
template <class T>
inline void AddRowProducts(const T* a, const T* b, int64_t rows, T* sums) {
  constexpr int L = kLanes<T>;
  for (int i = 0; i < kTile; i += L) {
    Vec<T> sum = Load(sums + i);
    for (int64_t r = 0; r < rows; ++r) sum += Load(a + r * kTile + i) * Load(b + r * kTile + i);
    Store<T>(sums + i, sum);
  }
}

// sums[r] += sum_lane tile[r][lane] weights[lane]
template <class T>
inline void AddLaneSums(const T* tile, const T* weights, int64_t rows, T* sums) {
  constexpr int L = kLanes<T>;
  for (int64_t r = 0; r < rows; ++r) {
    Vec<T> sum{};
    for (int i = 0; i < kTile; i += L) sum += Load(tile + r * kTile + i) * Load(weights + i);
    T total = 0;
    for (int i = 0; i < L; ++i) total += sum[i];
    sums[r] += total;
  }
}

}  // namespace tandem::TANDEM_KERNEL_ISA
