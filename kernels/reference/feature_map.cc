// Every feature map, one- or two-sided, with or without a bias, and the derivatives (method.md §2).
#include <algorithm>

#include "kernels/reference/indexing.h"

namespace tandem::reference {
namespace {

constexpr double kFloor = 1e-12, kLimit = 20;

// u = x W_h + b_h of one token; x's heads are kv_heads.
Array Projected(const Head& head, int64_t t, const Array& x, const Array& w, const Array& bias) {
  const Sizes& s = head.s;
  const int64_t per_head = static_cast<int64_t>(bias.size()) / s.heads;  // 0, 1 or f
  Array u = Zeros(s.map_dim);
  for (int64_t c = 0; c < s.map_dim && per_head > 0; ++c)
    At(u, c) = At(bias, head.h * per_head + c % per_head);
  for (int64_t c = 0; c < s.dim; ++c)
    AddRow(u, 0, At(x, head.KeyRow(t) + c), w, (head.h * s.dim + c) * s.map_dim, s.map_dim);
  return u;
}

// One side, of u or of -u, before its floor.
Array Side(MapKind kind, const Array& u) {
  const double top = *std::max_element(u.begin(), u.end());
  Array phi(u.size());
  double sum = 0;
  for (size_t c = 0; c < u.size(); ++c) {
    switch (kind) {
      case MapKind::kHedgehog:
      case MapKind::kExpShifted:
        sum += phi[c] = std::exp(u[c] - top);
        break;
      case MapKind::kExp:
        phi[c] = std::exp(std::clamp(u[c], -kLimit, kLimit));
        break;
      case MapKind::kRelu:
        phi[c] = u[c];
        break;
      case MapKind::kElu:
        phi[c] = u[c] > 0 ? 1 + u[c] : std::exp(u[c]);
    }
  }
  for (double& value : phi) value /= kind == MapKind::kHedgehog ? sum : 1;
  return phi;
}

// du of one side from dphi; phi is before its floor.
Array SideBackward(MapKind kind, const Array& u, const Array& phi, Array d_phi) {
  const auto first = static_cast<size_t>(std::max_element(u.begin(), u.end()) - u.begin());
  Array d_u(u.size(), 0.0);
  double mean = 0;
  for (size_t c = 0; c < u.size(); ++c) {
    if (phi[c] < kFloor) d_phi[c] = 0;
    mean += phi[c] * d_phi[c];
  }
  for (size_t c = 0; c < u.size(); ++c) {
    switch (kind) {
      case MapKind::kHedgehog:
        d_u[c] += phi[c] * (d_phi[c] - mean);
        break;
      case MapKind::kExp:
        d_u[c] += std::abs(u[c]) <= kLimit ? phi[c] * d_phi[c] : 0;
        break;
      case MapKind::kExpShifted:
        d_u[c] += phi[c] * d_phi[c];
        d_u[first] -= phi[c] * d_phi[c];
        break;
      case MapKind::kRelu:
        d_u[c] += d_phi[c];
        break;
      case MapKind::kElu:
        d_u[c] += d_phi[c] * (u[c] > 0 ? 1 : phi[c]);
    }
  }
  return d_u;
}

Array Negative(Array u) {
  for (double& value : u) value = -value;
  return u;
}

// body(side of u, its first feature, +1 or -1).
template <class Body>
void ForSides(const Sizes& s, const Array& u, const Body& body) {
  body(u, int64_t{0}, 1.0);
  if (s.num_features() == 2 * s.map_dim) body(Negative(u), s.map_dim, -1.0);
}

}  // namespace

Array FeatureMap(const Sizes& s, MapKind kind, const Array& x, const Array& w, const Array& bias) {
  Array phi = Zeros(s.batch * s.heads * s.tokens * s.num_features());
  ForHeads(s, [&](const Head& head) {
    for (int64_t t = 0; t < s.tokens; ++t)
      ForSides(s, Projected(head, t, x, w, bias), [&](const Array& u, int64_t first, double) {
        const Array side = Side(kind, u);
        for (int64_t c = 0; c < s.map_dim; ++c)
          At(phi, head.PhiRow(t) + first + c) = std::max(At(side, c), kFloor);
      });
  });
  return phi;
}

FeatureMapGradient FeatureMapBackward(const Sizes& s, MapKind kind, const Array& x, const Array& w,
                                      const Array& bias, const Array& d_phi) {
  FeatureMapGradient g{Zeros(static_cast<int64_t>(x.size())), Zeros(static_cast<int64_t>(w.size())),
                       Zeros(static_cast<int64_t>(bias.size()))};
  const int64_t per_head = static_cast<int64_t>(bias.size()) / s.heads;
  ForHeads(s, [&](const Head& head) {
    for (int64_t t = 0; t < s.tokens; ++t) {
      Array d_u = Zeros(s.map_dim);
      ForSides(s, Projected(head, t, x, w, bias), [&](const Array& u, int64_t first, double sign) {
        const auto upstream = d_phi.begin() + head.PhiRow(t) + first;
        AddRow(d_u, 0, sign,
               SideBackward(kind, u, Side(kind, u), Array(upstream, upstream + s.map_dim)), 0,
               s.map_dim);
      });
      for (int64_t c = 0; c < s.map_dim && per_head > 0; ++c)
        At(g.d_bias, head.h * per_head + c % per_head) += At(d_u, c);
      for (int64_t c = 0; c < s.dim; ++c) {
        const int64_t w_row = (head.h * s.dim + c) * s.map_dim;
        AddRow(g.d_w, w_row, At(x, head.KeyRow(t) + c), d_u, 0, s.map_dim);
        At(g.d_x, head.KeyRow(t) + c) += Dot(w, w_row, d_u, 0, s.map_dim);
      }
    }
  });
  return g;
}

}  // namespace tandem::reference
