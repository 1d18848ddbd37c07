#include "worker/model/recurrent/sparse_cache.h"

#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <limits>

namespace tandem {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr double kSmallestMass = 1e-12;

// (B,H,1,d) -> (B,H,1)
at::Tensor Length(const at::Tensor& x) {
  return at::linalg_vector_norm(x, 2, at::IntArrayRef{-1});
}

at::Tensor Score(const at::Tensor& k, const at::Tensor& v, const at::Tensor& phi,
                 const LayerMemory& memory) {
  const at::Tensor mass = at::matmul(phi, memory.z.unsqueeze(-1)).clamp_min_(kSmallestMass);
  const at::Tensor readout = at::matmul(phi, memory.S).div_(mass);
  return Length(readout.sub_(v)).mul_(Length(k));
}

}  // namespace

void StartSparseCache(int64_t size, LayerMemory* memory) {
  const int64_t B = memory->S.size(0), H = memory->S.size(1), d = memory->S.size(3);
  memory->cached_k = at::zeros({B, H, size, d}, memory->S.options());
  memory->cached_v = at::zeros({B, H, size, d}, memory->S.options());
  memory->cached_score = at::full({B, H, size}, kNothing, memory->S.options());
}

at::Tensor EmptyPlaces(const LayerMemory& memory) {
  return memory.cached_score.eq(kNothing);
}

void LeaveWindow(const at::Tensor& k, const at::Tensor& v,
                 const std::function<at::Tensor(const at::Tensor&)>& phi, LayerMemory* memory) {
  const at::Tensor score = Score(k, v, phi(k), *memory);                       // (B,H,1)
  const at::Tensor place = memory->cached_score.argmin(-1, /*keepdim=*/true);  // (B,H,1)
  const at::Tensor lowest = memory->cached_score.gather(-1, place);
  const at::Tensor enters = score.gt(lowest).unsqueeze(-1);  // (B,H,1,1)
  const at::Tensor rows = place.unsqueeze(-1).expand_as(k);  // (B,H,1,d)
  const at::Tensor old_k = memory->cached_k.gather(2, rows);
  const at::Tensor old_v = memory->cached_v.gather(2, rows);

  const at::Tensor lost_k = at::where(enters, old_k, k), lost_v = at::where(enters, old_v, v);
  const at::Tensor none = at::logical_and(enters, lowest.eq(kNothing).unsqueeze(-1));
  const at::Tensor lost_phi = phi(lost_k).masked_fill(none, 0);
  memory->S.add_(at::matmul(lost_phi.transpose(2, 3), lost_v));
  memory->z.add_(lost_phi.squeeze(2));

  memory->cached_k.scatter_(2, rows, at::where(enters, k, old_k));
  memory->cached_v.scatter_(2, rows, at::where(enters, v, old_v));
  memory->cached_score.scatter_(-1, place, at::where(enters.squeeze(-1), score, lowest));
}

}  // namespace tandem
