#include "kernels/reference/attention.h"
#include "kernels/reference/indexing.h"

namespace tandem::reference {
namespace {

constexpr double kEpsilon = 1e-12;

HybridGradient Empty(const Sizes& s) {
  const int64_t rows = s.batch * s.heads * s.tokens;
  const int64_t keys = s.batch * s.kv_heads * s.tokens * s.dim;
  const int64_t features = rows * s.num_features();
  return {Zeros(rows * s.dim), Zeros(keys),     Zeros(keys),
          Zeros(features),     Zeros(features), Zeros(s.heads)};
}

// One query row: the gradients of y_i = sum_j (e_ij + x_ij) v_j / D with D = P + Z (method.md §5).
class RowGradient {
 public:
  RowGradient(const HybridInput& in, const Head& head, const Array& d_out, int64_t i,
              const Row& row, double total, HybridGradient& g)
      : in_(in), head_(head), d_out_(d_out), i_(i), row_(row), total_(total), g_(g) {
    const int64_t d = head.s.dim;
    Array y = Zeros(d);
    for (int64_t j = 0; j <= i; ++j)
      AddRow(y, 0, (At(row.e, j) + At(row.x, j)) / total, in.v, head.KeyRow(j), d);
    delta_ = Dot(d_out, head.QueryRow(i), y, 0, d);
  }

  void AddValuesAndFeatures() {
    const Sizes& s = head_.s;
    for (int64_t j = 0; j <= i_; ++j) {
      AddRow(g_.d_v, head_.KeyRow(j), (At(row_.e, j) + At(row_.x, j)) / total_, d_out_,
             head_.QueryRow(i_), s.dim);
      if (At(row_.x, j) == 0) continue;  // not in the linear set: features are positive
      const double d_x = row_.lambda * Upstream(j);
      const int64_t features = s.num_features();
      AddRow(g_.d_phi_q, head_.PhiRow(i_), d_x, in_.phi_k, head_.PhiRow(j), features);
      AddRow(g_.d_phi_k, head_.PhiRow(j), d_x, in_.phi_q, head_.PhiRow(i_), features);
    }
  }

  // lambda = 1 - gamma: dgamma -= sum x / lambda dL/dx.
  void AddLambda() {
    for (int64_t j = 0; j <= i_; ++j)
      At(g_.d_gamma, head_.h) -= At(row_.x, j) / row_.lambda * Upstream(j);
  }

  // t_ij = e_ij dL/de_ij, R = sum t; ds = t - [j = argmax] R, dgamma += R / gamma.
  void AddScores(bool detach_max) {
    const Sizes& s = head_.s;
    double sum = 0;
    for (int64_t j = 0; j <= i_; ++j) sum += At(row_.e, j) * Upstream(j);
    At(g_.d_gamma, head_.h) += sum / At(in_.gamma, head_.h);
    const double tau = 1 / std::sqrt(static_cast<double>(s.dim));
    for (int64_t j = 0; j <= i_; ++j) {
      double d_s = At(row_.e, j) * Upstream(j);
      if (!detach_max && j == row_.first_max) d_s -= sum;
      AddRow(g_.d_q, head_.QueryRow(i_), tau * d_s, in_.k, head_.KeyRow(j), s.dim);
      AddRow(g_.d_k, head_.KeyRow(j), tau * d_s, in_.q, head_.QueryRow(i_), s.dim);
    }
  }

 private:
  // dL/de_ij = dL/dx_ij = (dy . v_j - delta) / D
  double Upstream(int64_t j) const {
    return (Dot(d_out_, head_.QueryRow(i_), in_.v, head_.KeyRow(j), head_.s.dim) - delta_) / total_;
  }

  const HybridInput& in_;
  const Head& head_;
  const Array& d_out_;
  const int64_t i_;
  const Row& row_;
  const double total_;
  HybridGradient& g_;
  double delta_ = 0;
};

}  // namespace

HybridGradient HybridBackward(const Sizes& s, const Options& o, const HybridInput& in,
                              const Array& d_out) {
  HybridGradient g = Empty(s);
  ForHeads(s, [&](const Head& head) {
    for (int64_t i = 0; i < s.tokens; ++i) {
      const Row row = HybridRow(o, in, head, i);
      RowGradient step(in, head, d_out, i, row, row.window_mass + row.linear_mass, g);
      step.AddValuesAndFeatures();
      step.AddScores(o.detach_max);
      if (o.affine) step.AddLambda();
    }
  });
  return g;
}

HybridGradient LinearOnlyBackward(const Sizes& s, const HybridInput& in, const Array& d_out) {
  HybridGradient g = Empty(s);
  ForHeads(s, [&](const Head& head) {
    for (int64_t i = 0; i < s.tokens; ++i) {
      Row row{Zeros(i + 1), Zeros(i + 1)};
      for (int64_t j = 0; j <= i; ++j) row.linear_mass += At(row.x, j) = Feature(in, head, i, j);
      RowGradient step(in, head, d_out, i, row, row.linear_mass + kEpsilon, g);
      step.AddValuesAndFeatures();
    }
  });
  return g;
}

}  // namespace tandem::reference
