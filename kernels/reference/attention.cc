#include "kernels/reference/attention.h"

#include <algorithm>

#include "kernels/reference/indexing.h"

namespace tandem::reference {
namespace {

constexpr double kFloor = 1e-12;    // of features, method.md §2
constexpr double kEpsilon = 1e-12;  // of linear_only's denominator and of the weights loss

// u = x W_h of one token (method.md §2).
Array Projected(const Sizes& s, const Array& x, int64_t x_row, const Array& w, int64_t h) {
  Array u = Zeros(s.map_dim);
  for (int64_t c = 0; c < s.dim; ++c)
    AddRow(u, 0, At(x, x_row + c), w, (h * s.dim + c) * s.map_dim, s.map_dim);
  return u;
}

Array SoftmaxOf(const Array& u, double sign) {
  double top = sign * u[0];
  for (double value : u) top = std::max(top, sign * value);
  Array p(u.size());
  double sum = 0;
  for (size_t i = 0; i < u.size(); ++i) sum += p[i] = std::exp(sign * u[i] - top);
  for (double& value : p) value /= sum;
  return p;
}

int64_t InputRow(const Sizes& s, const Head& head, int64_t t) {
  return ((head.b * s.kv_heads + head.kv) * s.tokens + t) * s.dim;
}

}  // namespace

bool InSoftmaxSet(const Options& o, int64_t i, int64_t j) {
  const int64_t pad = o.align_end ? (o.window - o.tokens % o.window) % o.window : 0;
  const int64_t start = o.terraced ? ((i + pad) / o.window - 1) * o.window - pad : i - o.window + 1;
  return j <= i && (j >= start || j < o.sinks);
}

bool InLinearSet(const Options& o, int64_t i, int64_t j) {
  const bool all = o.span_all || (o.lolcats && o.tokens <= o.window);
  return j <= i && (all || !InSoftmaxSet(o, i, j));
}

Array FeatureMap(const Sizes& s, const Array& x, const Array& w) {
  Array phi = Zeros(s.batch * s.heads * s.tokens * 2 * s.map_dim);
  ForHeads(s, [&](const Head& head) {
    for (int64_t t = 0; t < s.tokens; ++t) {
      const Array u = Projected(s, x, InputRow(s, head, t), w, head.h);
      const Array plus = SoftmaxOf(u, 1), minus = SoftmaxOf(u, -1);
      for (int64_t c = 0; c < s.map_dim; ++c) {
        At(phi, head.PhiRow(t) + c) = std::max(At(plus, c), kFloor);
        At(phi, head.PhiRow(t) + s.map_dim + c) = std::max(At(minus, c), kFloor);
      }
    }
  });
  return phi;
}

// du = pi+ (dpi+ - <pi+,dpi+>) - pi- (dpi- - <pi-,dpi->), dpi = 0 where the clamp is active
// (method.md §5).
FeatureMapGradient FeatureMapBackward(const Sizes& s, const Array& x, const Array& w,
                                      const Array& d_phi) {
  FeatureMapGradient g{Zeros(static_cast<int64_t>(x.size())),
                       Zeros(static_cast<int64_t>(w.size()))};
  ForHeads(s, [&](const Head& head) {
    for (int64_t t = 0; t < s.tokens; ++t) {
      const int64_t x_row = InputRow(s, head, t);
      const Array u = Projected(s, x, x_row, w, head.h);
      Array d_u = Zeros(s.map_dim);
      for (const int half : {0, 1}) {
        const double sign = half == 0 ? 1 : -1;
        const Array pi = SoftmaxOf(u, sign);
        Array d_pi = Zeros(s.map_dim);
        for (int64_t c = 0; c < s.map_dim; ++c)
          if (At(pi, c) >= kFloor) At(d_pi, c) = At(d_phi, head.PhiRow(t) + half * s.map_dim + c);
        const double mean = Dot(pi, 0, d_pi, 0, s.map_dim);
        for (int64_t c = 0; c < s.map_dim; ++c)
          At(d_u, c) += sign * At(pi, c) * (At(d_pi, c) - mean);
      }
      for (int64_t c = 0; c < s.dim; ++c) {
        const int64_t w_row = (head.h * s.dim + c) * s.map_dim;
        AddRow(g.d_w, w_row, At(x, x_row + c), d_u, 0, s.map_dim);
        At(g.d_x, x_row + c) += Dot(w, w_row, d_u, 0, s.map_dim);
      }
    }
  });
  return g;
}

// e_ij = gamma exp(s_ij - c_i), c_i the maximum over the softmax set; x_ij = lambda phi_q_i .
// phi_k_j (method.md §3).
Row HybridRow(const Options& o, const HybridInput& in, const Head& head, int64_t i) {
  Row row{Zeros(i + 1), Zeros(i + 1)};
  double top = 0, softmax_sum = 0, map_mass = 0;
  bool has_linear = false;
  for (int64_t j = 0; j <= i; ++j) {
    has_linear = has_linear || InLinearSet(o, i, j);
    if (!InSoftmaxSet(o, i, j)) continue;
    At(row.e, j) = Score(in, head, i, j);
    if (row.first_max < 0 || At(row.e, j) > top) {
      top = At(row.e, j);
      row.first_max = j;
    }
  }
  if (o.affine) row.lambda = 1 - At(in.gamma, head.h);
  for (int64_t j = 0; j <= i; ++j) {
    if (InSoftmaxSet(o, i, j)) {
      softmax_sum += At(row.e, j) = std::exp(At(row.e, j) - top);
      if (o.mass) map_mass += Feature(in, head, i, j);
    }
    if (InLinearSet(o, i, j))
      row.linear_mass += At(row.x, j) = row.lambda * Feature(in, head, i, j);
  }
  double factor = o.mass ? map_mass / softmax_sum : At(in.gamma, head.h) * o.gain;
  if (o.window_off && has_linear) factor = 0;
  for (double& e : row.e) e *= factor;
  row.window_mass = factor * softmax_sum;
  return row;
}

// D = P + Z, y = (sum e v + sum x v) / D.
HybridOutput Hybrid(const Sizes& s, const Options& o, const HybridInput& in) {
  HybridOutput result{Zeros(s.batch * s.heads * s.tokens * s.dim),
                      Zeros(s.batch * s.heads * s.tokens)};
  const Array& v_linear = in.v_linear.empty() ? in.v : in.v_linear;
  ForHeads(s, [&](const Head& head) {
    for (int64_t i = 0; i < s.tokens; ++i) {
      const Row row = HybridRow(o, in, head, i);
      const double total = row.window_mass + row.linear_mass;
      for (int64_t j = 0; j <= i; ++j) {
        AddRow(result.out, head.QueryRow(i), At(row.e, j) / total, in.v, head.KeyRow(j), s.dim);
        AddRow(result.out, head.QueryRow(i), At(row.x, j) / total, v_linear, head.KeyRow(j), s.dim);
      }
      At(result.linear_mass, head.Scalar(i)) = row.linear_mass / total;
    }
  });
  return result;
}

Array LinearOnly(const Sizes& s, const HybridInput& in) {
  Array out = Zeros(s.batch * s.heads * s.tokens * s.dim);
  ForHeads(s, [&](const Head& head) {
    for (int64_t i = 0; i < s.tokens; ++i) {
      double total = kEpsilon;
      for (int64_t j = 0; j <= i; ++j) total += Feature(in, head, i, j);
      for (int64_t j = 0; j <= i; ++j)
        AddRow(out, head.QueryRow(i), Feature(in, head, i, j) / total, in.v, head.KeyRow(j), s.dim);
    }
  });
  return out;
}

Array SoftmaxOnly(const Sizes& s, const Options& o, const HybridInput& in) {
  HybridInput window = in;
  window.gamma.assign(static_cast<size_t>(s.heads), 1.0);
  window.phi_q.assign(static_cast<size_t>(s.batch * s.heads * s.tokens * s.num_features()), 0.0);
  window.phi_k = window.phi_q;
  Options plain = o;
  plain.affine = plain.mass = plain.window_off = false;
  return Hybrid(s, plain, window).out;
}

Teacher CausalSoftmax(const Sizes& s, const Array& q, const Array& k, const Array& v) {
  Teacher result{Zeros(s.batch * s.heads * s.tokens * s.dim), Zeros(s.batch * s.heads * s.tokens)};
  const HybridInput in{q, k, v, {}, {}, {}, {}};
  ForHeads(s, [&](const Head& head) {
    for (int64_t i = 0; i < s.tokens; ++i) {
      Array scores = Zeros(i + 1);
      for (int64_t j = 0; j <= i; ++j) At(scores, j) = Score(in, head, i, j);
      const double top = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double score : scores) sum += std::exp(score - top);
      const double lse = At(result.lse, head.Scalar(i)) = top + std::log(sum);
      for (int64_t j = 0; j <= i; ++j)
        AddRow(result.out, head.QueryRow(i), std::exp(At(scores, j) - lse), v, head.KeyRow(j),
               s.dim);
    }
  });
  return result;
}

// loss_i = -sum p ln(x + eps) + ln Z; dL/dx = (1/Z - p/(x + eps)) / N (method.md §6.1).
WeightsLossResult WeightsLoss(const Sizes& s, const HybridInput& in, const Array& lse) {
  const int64_t features = s.num_features();
  const double rows = static_cast<double>(s.batch * s.heads * s.tokens);
  WeightsLossResult result{0, Zeros(s.batch * s.heads * s.tokens * features),
                           Zeros(s.batch * s.heads * s.tokens * features)};
  ForHeads(s, [&](const Head& head) {
    for (int64_t i = 0; i < s.tokens; ++i) {
      Array x = Zeros(i + 1);
      double mass = 0;
      for (int64_t j = 0; j <= i; ++j) mass += At(x, j) = Feature(in, head, i, j);
      result.loss += std::log(mass) / rows;
      for (int64_t j = 0; j <= i; ++j) {
        const double p = std::exp(Score(in, head, i, j) - At(lse, head.Scalar(i)));
        result.loss -= p * std::log(At(x, j) + kEpsilon) / rows;
        const double d_x = (1 / mass - p / (At(x, j) + kEpsilon)) / rows;
        AddRow(result.d_phi_q, head.PhiRow(i), d_x, in.phi_k, head.PhiRow(j), features);
        AddRow(result.d_phi_k, head.PhiRow(j), d_x, in.phi_q, head.PhiRow(i), features);
      }
    }
  });
  return result;
}

double HybridWeightsLoss(const Sizes& s, const Options& o, const HybridInput& in,
                         const Array& lse) {
  double loss = 0;
  ForHeads(s, [&](const Head& head) {
    for (int64_t i = 0; i < s.tokens; ++i) {
      const Row row = HybridRow(o, in, head, i);
      loss += std::log(row.window_mass + row.linear_mass);
      for (int64_t j = 0; j <= i; ++j) {
        const double p = std::exp(Score(in, head, i, j) - At(lse, head.Scalar(i)));
        loss -= p * std::log(InSoftmaxSet(o, i, j) ? At(row.e, j) : At(row.x, j) + kEpsilon);
      }
    }
  });
  return loss / static_cast<double>(s.batch * s.heads * s.tokens);
}

}  // namespace tandem::reference
