// Where the rows of one (sequence, query head) pair lie. Immutable; private to this folder.
#pragma once

#include <cmath>

#include "kernels/reference/attention.h"

namespace tandem::reference {

struct Head {
  Head(const Sizes& sizes, int64_t batch, int64_t head)
      : s(sizes), b(batch), h(head), kv(head / (sizes.heads / sizes.kv_heads)) {}

  int64_t QueryRow(int64_t t) const { return ((b * s.heads + h) * s.tokens + t) * s.dim; }
  int64_t KeyRow(int64_t t) const { return ((b * s.kv_heads + kv) * s.tokens + t) * s.dim; }
  int64_t PhiRow(int64_t t) const { return ((b * s.heads + h) * s.tokens + t) * s.num_features(); }
  int64_t Scalar(int64_t t) const { return (b * s.heads + h) * s.tokens + t; }

  const Sizes& s;
  const int64_t b, h, kv;
};

template <class Body>
void ForHeads(const Sizes& sizes, const Body& body) {
  for (int64_t b = 0; b < sizes.batch; ++b)
    for (int64_t h = 0; h < sizes.heads; ++h) body(Head(sizes, b, h));
}

inline double Dot(const Array& a, int64_t a_row, const Array& b, int64_t b_row, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i)
    sum += a[static_cast<size_t>(a_row + i)] * b[static_cast<size_t>(b_row + i)];
  return sum;
}

// to += factor * from
inline void AddRow(Array& to, int64_t to_row, double factor, const Array& from, int64_t from_row,
                   int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    to[static_cast<size_t>(to_row + i)] += factor * from[static_cast<size_t>(from_row + i)];
}

inline double& At(Array& a, int64_t i) {
  return a[static_cast<size_t>(i)];
}
inline double At(const Array& a, int64_t i) {
  return a[static_cast<size_t>(i)];
}
inline Array Zeros(int64_t n) {
  return Array(static_cast<size_t>(n), 0.0);
}

inline double Score(const HybridInput& in, const Head& head, int64_t i, int64_t j) {
  return Dot(in.q, head.QueryRow(i), in.k, head.KeyRow(j), head.s.dim) /
         std::sqrt(static_cast<double>(head.s.dim));
}
inline double Feature(const HybridInput& in, const Head& head, int64_t i, int64_t j) {
  return Dot(in.phi_q, head.PhiRow(i), in.phi_k, head.PhiRow(j), head.s.num_features());
}

// e_ij, x_ij and the sums of one query row; keys 0 .. i.
struct Row {
  Array e, x;
  double window_mass = 0, linear_mass = 0;  // P, Z
  int64_t first_max = -1;                   // the first key that attains c_i
  double lambda = 1;
};
Row HybridRow(const Options& options, const HybridInput& in, const Head& head, int64_t i);

}  // namespace tandem::reference
