#include "worker/model/recurrent/sparse_cache.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

// Without OpenMP, ATen's parallel_for runs on one thread and says nothing (cmake/Torch.cmake).
#ifndef INTRA_OP_PARALLEL
#error "compile with TANDEM_PARALLEL_OPTIONS"
#endif

namespace tandem {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
constexpr float kSmallestMass = 1e-12f;

// Keys are numbered: first those in `places` cache places, then those that leave.
struct Sizes {
  int64_t places, leaving, features, dim;
};

// One head's, in memory order.
struct Head {
  const float *phi, *v, *length;  // (places + leaving, F), (.., d); |k| of those that leave
  float *S, *z, *score;           // (F,d), (F), (places)
  int64_t* holder;                // (places): the key in it
  int64_t *enters, *leaves;       // (places + leaving): how many have left by then
};

float SelfRecallError(const float* phi, const float* v, const Head& head, const Sizes& n,
                      std::vector<float>& readout) {
  float mass = 0, squares = 0;
  std::fill(readout.begin(), readout.end(), 0.0f);
  for (int64_t f = 0; f < n.features; ++f) {
    mass += phi[f] * head.z[f];
    const float* row = head.S + f * n.dim;
    for (int64_t i = 0; i < n.dim; ++i) readout[static_cast<size_t>(i)] += phi[f] * row[i];
  }
  mass = std::max(mass, kSmallestMass);
  for (int64_t i = 0; i < n.dim; ++i) {
    const float error = readout[static_cast<size_t>(i)] / mass - v[i];
    squares += error * error;
  }
  return std::sqrt(squares);
}

void Fold(int64_t key, const Head& head, const Sizes& n) {
  const float *phi = head.phi + key * n.features, *v = head.v + key * n.dim;
  for (int64_t f = 0; f < n.features; ++f) {
    head.z[f] += phi[f];
    float* row = head.S + f * n.dim;
    for (int64_t i = 0; i < n.dim; ++i) row[i] += phi[f] * v[i];
  }
}

void LeaveOneByOne(const Head& head, const Sizes& n) {
  std::vector<float> readout(static_cast<size_t>(n.dim));
  for (int64_t i = 0; i < n.leaving; ++i) {
    const int64_t key = n.places + i;
    const float score = head.length[i] * SelfRecallError(head.phi + key * n.features,
                                                         head.v + key * n.dim, head, n, readout);
    float* lowest = std::min_element(head.score, head.score + n.places);
    int64_t lost = key;
    if (score > *lowest) {
      const bool was_empty = *lowest == kNothing;
      int64_t& holder = head.holder[lowest - head.score];
      lost = was_empty ? -1 : holder;
      holder = key;
      *lowest = score;
      head.enters[key] = i + 1;
    }
    if (lost < 0) continue;
    head.leaves[lost] = i + 1;
    Fold(lost, head, n);
  }
}

at::Tensor OnHost(const at::Tensor& x) {
  return x.to(at::kCPU).contiguous();
}
at::Tensor HostCopy(const at::Tensor& x) {
  return x.to(x.options().device(at::kCPU), /*non_blocking=*/false, /*copy=*/true).contiguous();
}

// (B,H,m,d) at index (B,H,n).
at::Tensor RowsAt(const at::Tensor& x, const at::Tensor& index) {
  return x.gather(2, index.unsqueeze(-1).expand({-1, -1, -1, x.size(3)}));
}

// What is decided on, on the host, and the decisions.
struct Decisions {
  at::Tensor S, z, score, holder, enters, leaves;
};

// Of all heads; phi and v of the keys as Head numbers them, length of those that leave.
void Decide(const at::Tensor& phi, const at::Tensor& v, const at::Tensor& length,
            const Decisions& out) {
  const Sizes n{out.score.size(2), length.size(2), phi.size(3), v.size(3)};
  const int64_t keys = n.places + n.leaving;
  const at::Tensor phi_h = OnHost(phi), v_h = OnHost(v), length_h = OnHost(length);
  at::parallel_for(0, phi.size(0) * phi.size(1), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      LeaveOneByOne({phi_h.const_data_ptr<float>() + i * keys * n.features,
                     v_h.const_data_ptr<float>() + i * keys * n.dim,
                     length_h.const_data_ptr<float>() + i * n.leaving,
                     out.S.mutable_data_ptr<float>() + i * n.features * n.dim,
                     out.z.mutable_data_ptr<float>() + i * n.features,
                     out.score.mutable_data_ptr<float>() + i * n.places,
                     out.holder.mutable_data_ptr<int64_t>() + i * n.places,
                     out.enters.mutable_data_ptr<int64_t>() + i * keys,
                     out.leaves.mutable_data_ptr<int64_t>() + i * keys},
                    n);
    }
  });
}

}  // namespace

void StartSparseCache(int64_t size, LayerMemory* memory) {
  const int64_t B = memory->S.size(0), H = memory->S.size(1), d = memory->S.size(3);
  memory->cached_k = at::zeros({B, H, size, d}, memory->S.options());
  memory->cached_v = at::zeros({B, H, size, d}, memory->S.options());
  memory->cached_score = at::full({B, H, size}, kNothing, memory->S.options());
}

CacheTurnover TurnOver(const LeavingKeys& leaving,
                       const std::function<at::Tensor(const at::Tensor&)>& phi,
                       const LayerMemory& memory) {
  const int64_t B = memory.S.size(0), H = memory.S.size(1);
  const int64_t C = memory.cached_k.size(2), L = leaving.k.size(2);
  // With L decisions none but the L lowest scores can lose its place: these come last.
  const int64_t places = std::min(C, L), safe = C - places, N = places + L, never = L + 1;
  const auto [score, order] = at::sort(memory.cached_score, -1, /*descending=*/true);
  CacheTurnover out;
  out.k = at::cat({RowsAt(memory.cached_k, order), leaving.k}, 2);
  out.v = at::cat({RowsAt(memory.cached_v, order), leaving.v}, 2);
  out.phi = phi(out.k.narrow(2, safe, N));

  const at::Tensor enters = at::full({B, H, C + L}, never, order.options());
  enters.narrow(2, 0, C).masked_fill_(score.ne(kNothing), 0);
  const at::Tensor leaves = at::full({B, H, C + L}, never, order.options());
  const Decisions made{HostCopy(memory.S),
                       HostCopy(memory.z),
                       HostCopy(score.narrow(2, safe, places)),
                       HostCopy(at::arange(places, at::kLong).expand({B, H, places})),
                       HostCopy(enters.narrow(2, safe, N)),
                       HostCopy(leaves.narrow(2, safe, N))};
  Decide(out.phi, out.v.narrow(2, safe, N),
         at::linalg_vector_norm(leaving.k, 2, at::IntArrayRef{-1}), made);
  enters.narrow(2, safe, N).copy_(made.enters);
  leaves.narrow(2, safe, N).copy_(made.leaves);

  const at::Tensor left = leaving.left_r.view({-1, 1});
  out.hidden_rm = at::logical_or(left.lt(enters.unsqueeze(2)), left.ge(leaves.unsqueeze(2)));
  out.unfolded_rm = left.lt(leaves.narrow(2, safe, N).unsqueeze(2));
  const at::Tensor stay = at::arange(safe, order.options()).expand({B, H, safe});
  const at::Tensor held = at::cat({stay, made.holder.to(order.device()).add(safe)}, 2);
  out.cached_k = RowsAt(out.k, held);
  out.cached_v = RowsAt(out.v, held);
  out.cached_score = at::cat({score.narrow(2, 0, safe), made.score.to(score.device())}, 2);
  out.S = made.S.to(score.device());
  out.z = made.z.to(score.device());
  return out;
}

}  // namespace tandem
