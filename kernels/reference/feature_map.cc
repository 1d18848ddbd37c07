// The feature maps but hedgehog, and their derivatives (method.md §2).
#include <algorithm>

#include "kernels/reference/indexing.h"

namespace tandem::reference {
namespace {

constexpr double kFloor = 1e-12, kLimit = 20;

// u = x W_h + b_h of one token; x's heads are kv_heads.
Array Projected(const Head& head, int64_t t, const Array& x, const Array& w, const Array& bias) {
  const Sizes& s = head.s;
  Array u(static_cast<size_t>(s.map_dim), bias.empty() ? 0.0 : At(bias, head.h));
  for (int64_t c = 0; c < s.dim; ++c)
    AddRow(u, 0, At(x, head.KeyRow(t) + c), w, (head.h * s.dim + c) * s.map_dim, s.map_dim);
  return u;
}

// phi before its floor.
Array Features(MapKind kind, const Array& u) {
  const size_t f = u.size();
  const double top = *std::max_element(u.begin(), u.end());
  const double low = *std::min_element(u.begin(), u.end());
  const bool two_sided = kind == MapKind::kExp || kind == MapKind::kExpShifted;
  Array phi(two_sided ? 2 * f : f);
  for (size_t c = 0; c < f; ++c) {
    if (kind == MapKind::kExp) {
      phi[c] = std::exp(std::clamp(u[c], -kLimit, kLimit));
      phi[f + c] = std::exp(std::clamp(-u[c], -kLimit, kLimit));
    } else if (kind == MapKind::kExpShifted) {
      phi[c] = std::exp(u[c] - top);
      phi[f + c] = std::exp(low - u[c]);
    } else if (kind == MapKind::kRelu) {
      phi[c] = u[c];
    } else {
      phi[c] = u[c] > 0 ? 1 + u[c] : std::exp(u[c]);
    }
  }
  return phi;
}

// du from dphi; phi is before its floor.
Array FeaturesBackward(MapKind kind, const Array& u, const Array& phi, Array d_phi) {
  const size_t f = u.size();
  Array d_u(f, 0.0);
  const bool has_floor = kind != MapKind::kExp;
  for (size_t c = 0; c < phi.size(); ++c)
    if (has_floor && phi[c] < kFloor) d_phi[c] = 0;
  const auto first = static_cast<size_t>(std::max_element(u.begin(), u.end()) - u.begin());
  const auto last = static_cast<size_t>(std::min_element(u.begin(), u.end()) - u.begin());
  for (size_t c = 0; c < f; ++c) {
    if (kind == MapKind::kRelu) {
      d_u[c] += d_phi[c];
    } else if (kind == MapKind::kElu) {
      d_u[c] += d_phi[c] * (u[c] > 0 ? 1 : phi[c]);
    } else if (kind == MapKind::kExp) {
      if (std::abs(u[c]) <= kLimit) d_u[c] += phi[c] * d_phi[c] - phi[f + c] * d_phi[f + c];
    } else {
      d_u[c] += phi[c] * d_phi[c] - phi[f + c] * d_phi[f + c];
      d_u[first] -= phi[c] * d_phi[c];
      d_u[last] += phi[f + c] * d_phi[f + c];
    }
  }
  return d_u;
}

}  // namespace

Array FeatureMap(const Sizes& s, MapKind kind, const Array& x, const Array& w, const Array& bias) {
  Array phi = Zeros(s.batch * s.heads * s.tokens * s.num_features());
  ForHeads(s, [&](const Head& head) {
    for (int64_t t = 0; t < s.tokens; ++t) {
      const Array row = Features(kind, Projected(head, t, x, w, bias));
      for (int64_t c = 0; c < s.num_features(); ++c)
        At(phi, head.PhiRow(t) + c) =
            kind == MapKind::kExp ? At(row, c) : std::max(At(row, c), kFloor);
    }
  });
  return phi;
}

FeatureMapGradient FeatureMapBackward(const Sizes& s, MapKind kind, const Array& x, const Array& w,
                                      const Array& bias, const Array& d_phi) {
  FeatureMapGradient g{Zeros(static_cast<int64_t>(x.size())), Zeros(static_cast<int64_t>(w.size())),
                       Zeros(s.heads)};
  ForHeads(s, [&](const Head& head) {
    for (int64_t t = 0; t < s.tokens; ++t) {
      const Array u = Projected(head, t, x, w, bias);
      const auto upstream = d_phi.begin() + head.PhiRow(t);
      const Array d_u = FeaturesBackward(kind, u, Features(kind, u),
                                         Array(upstream, upstream + s.num_features()));
      for (double value : d_u) At(g.d_bias, head.h) += value;
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
