// The kernel table of one instruction set. CMake compiles this file once for each.
#include "kernels/cpu/hybrid_backward.h"
#include "kernels/cpu/softmax.h"
#include "kernels/cpu/tables.h"
#include "kernels/cpu/weights.h"

namespace tandem::TANDEM_KERNEL_ISA {
namespace {

// All parts of a hybrid task over one block of scratch.
template <class T>
struct HybridTask {
  HybridTask(const HybridProblem<T>& p, const HybridGradients<T>& g, bool backward, int64_t bh,
             T* scratch)
      : plan(p),
        carver(scratch),
        keys(p, plan, bh, carver),
        rows(p, plan, keys, carver, Tiles(carver, HybridRows<T>::MaxTiles(plan))),
        phi_q(plan.linear && !backward ? carver.Take(plan.features * kTile) : nullptr),
        target(carver.Take(plan.d * kTile)),
        sweep(p, plan, g, keys, rows, backward ? carver : unused) {}

  static WeightTile<T>* Tiles(Carver<T>& carver, int64_t n) {
    const int64_t elements =
        (n * static_cast<int64_t>(sizeof(WeightTile<T>)) + static_cast<int64_t>(sizeof(T)) - 1) /
        static_cast<int64_t>(sizeof(T));
    return reinterpret_cast<WeightTile<T>*>(carver.Take(elements));
  }

  void StepTo(int64_t r, T* phi) {
    keys.Load(r);
    if (plan.linear) keys.FoldUntil(plan.BandStart(r));
    rows.ComputeWeights(r, phi);
  }

  HybridPlan<T> plan;
  Carver<T> carver;
  Carver<T> unused{nullptr};
  HybridKeys<T> keys;
  HybridRows<T> rows;
  T* phi_q;
  T* target;
  HybridBackward<T> sweep;
};

template <class T>
int64_t HybridScratch(const HybridProblem<T>& p, bool backward) {
  static constexpr HybridGradients<T> none{};
  return HybridTask<T>(p, none, backward, 0, nullptr).carver.used();
}

template <class T>
void HybridForward(const HybridProblem<T>& p, const HybridOutputs<T>& to, int64_t bh, T* scratch) {
  static constexpr HybridGradients<T> none{};
  HybridTask<T> task(p, none, false, bh, scratch);
  const HybridPlan<T>& plan = task.plan;
  task.keys.Start();
  for (int64_t r = 0; r < plan.chunks; ++r) {
    task.StepTo(r, task.phi_q);
    task.rows.ComputeOutput();
    StoreFeatureMajor(task.rows.out(), r * kTile, plan.tokens, plan.d,
                      task.keys.Sequence(to.out, task.keys.head()), to.out.token);
    if (to.linear_mass == nullptr) continue;
    const int64_t first = r * kTile, count = Smaller(kTile, plan.tokens - first);
    for (int64_t i = 0; i < count; ++i)
      to.linear_mass[bh * plan.tokens + first + i] =
          task.rows.linear_mass()[i] / task.rows.total()[i];
  }
}

template <class T>
void HybridBackwardRun(const HybridProblem<T>& p, const HybridGradients<T>& g, int64_t bh,
                       T* scratch) {
  HybridTask<T> task(p, g, true, bh, scratch);
  const HybridPlan<T>& plan = task.plan;
  task.keys.Start();
  task.sweep.Start();
  for (int64_t r = 0; r < plan.chunks; ++r) {
    task.StepTo(r, task.sweep.PhiQ(r));
    LoadFeatureMajor(task.keys.Sequence(g.out, task.keys.head()), g.out.token, r * kTile,
                     plan.tokens, plan.d, task.rows.out());
    LoadFeatureMajor(task.keys.Sequence(g.grad_out, task.keys.head()), g.grad_out.token, r * kTile,
                     plan.tokens, plan.d, task.target);
    task.sweep.BackwardRows(r, task.rows.out(), task.target);
  }
  task.sweep.BackwardKeys();
}

// target becomes d_y = factor (y - y*), zero past the end; returns sum (y - y*)^2 of the tile.
template <class T>
double Compare(const T* y, T* target, int64_t d, int64_t count, T factor) {
  constexpr int L = kLanes<T>;
  Vec<T> sum{};
  for (int64_t c = 0; c < d; ++c) {
    T* row = target + c * kTile;
    for (int i = 0; i < kTile; i += L) Store<T>(row + i, Load(y + c * kTile + i) - Load(row + i));
    KeepLanes(row, 0, count, T{0});
    for (int i = 0; i < kTile; i += L) {
      const Vec<T> error = Load(row + i);
      sum += error * error;
      Store<T>(row + i, error * factor);
    }
  }
  double total = 0;
  for (int i = 0; i < L; ++i) total += static_cast<double>(sum[i]);
  return total;
}

template <class T>
void HybridTransfer(const HybridProblem<T>& p, const TransferOutputs<T>& to, int64_t bh,
                    T* scratch) {
  HybridGradients<T> g;
  g.d_w_q = to.d_w_q;
  g.d_w_k = to.d_w_k;
  g.d_gamma = to.d_gamma;
  HybridTask<T> task(p, g, true, bh, scratch);
  const HybridPlan<T>& plan = task.plan;
  task.keys.Start();
  task.sweep.Start();
  double squared_error = 0;
  for (int64_t r = 0; r < plan.chunks; ++r) {
    task.StepTo(r, task.sweep.PhiQ(r));
    task.rows.ComputeOutput();
    LoadFeatureMajor(task.keys.Sequence(to.teacher, task.keys.head()), to.teacher.token, r * kTile,
                     plan.tokens, plan.d, task.target);
    squared_error += Compare(task.rows.out(), task.target, plan.d,
                             Smaller(kTile, plan.tokens - r * kTile), to.grad_factor);
    task.sweep.BackwardRows(r, task.rows.out(), task.target);
  }
  task.sweep.BackwardKeys();
  to.squared_error[bh] = squared_error;
}

template <class T>
int64_t SoftmaxScratch(const AttentionSizes& sizes) {
  SoftmaxProblem<T> p;
  p.sizes = sizes;
  Carver<T> carver(nullptr);
  const SoftmaxTask<T> task(p, 0, carver);
  return carver.used();
}

template <class T>
void Softmax(const SoftmaxProblem<T>& p, int64_t bh, T* scratch) {
  Carver<T> carver(scratch);
  SoftmaxTask<T>(p, bh, carver).Run();
}

template <class T>
int64_t WeightsScratch(const AttentionSizes& sizes) {
  WeightsProblem<T> p;
  p.sizes = sizes;
  Carver<T> carver(nullptr);
  const WeightsTask<T> task(p, 0, carver);
  return carver.used();
}

template <class T>
void Weights(const WeightsProblem<T>& p, int64_t bh, T* scratch) {
  Carver<T> carver(scratch);
  WeightsTask<T>(p, bh, carver).Run();
}

template <class T>
int64_t MapScratch(const AttentionSizes& sizes) {
  const int64_t d = sizes.dim, f = sizes.map_dim, padded = PaddedWidth(d);
  return (2 * d + 5 * f) * kTile + (kTile + f) * padded;
}

template <class T>
void MapForward(const MapProblem<T>& p, int64_t bh, T* scratch) {
  const TileSizes s(p.sizes);
  const TaskPlace at(p.sizes, bh);
  T* x = scratch;
  T* phi = x + s.d * kTile;
  for (int64_t first = 0; first < s.tokens; first += kTile) {
    LoadFeatureMajor(at.Sequence(p.x, at.kv_head), p.x.token, first, s.tokens, s.d, x);
    MapTile(x, p.w + at.head * s.MapArea(), s.d, s.f, phi);
    StoreFeatureMajor(phi, first, s.tokens, s.features, at.Sequence(p.phi, at.head), p.phi.token);
  }
}

template <class T>
void MapBackward(const MapProblem<T>& p, int64_t bh, T* scratch) {
  const TileSizes s(p.sizes);
  const TaskPlace at(p.sizes, bh);
  T* x = scratch;
  T* d_x = x + s.d * kTile;
  T* phi = d_x + s.d * kTile;
  T* d_phi = phi + s.features * kTile;
  T* d_u = d_phi + s.features * kTile;
  T* rows = d_u + s.f * kTile;
  T* d_w = rows + kTile * s.padded;
  const T* sequence = at.Sequence(p.x, at.kv_head);
  const T* w = p.w + at.head * s.MapArea();
  Zero(d_w, s.f * s.padded);
  for (int64_t chunk = 0; chunk < s.chunks; ++chunk) {
    const int64_t first = chunk * kTile;
    LoadFeatureMajor(sequence, p.x.token, first, s.tokens, s.d, x);
    MapTile(x, w, s.d, s.f, phi);
    LoadFeatureMajor(at.Sequence(p.d_phi, at.head), p.d_phi.token, first, s.tokens, s.features,
                     d_phi);
    MapBackwardTile(phi, d_phi, s.f, d_u);
    AddMapGradient(s, d_u, sequence, p.x.token, chunk, rows, d_w);
    if (p.d_x.data == nullptr) continue;
    Product<Into::kSet>(d_x, kTile, {w, s.f, 1}, d_u, kTile, s.d, kTile, s.f);
    StoreFeatureMajor(d_x, first, s.tokens, s.d, at.Sequence(p.d_x, at.head), p.d_x.token);
  }
  if (p.d_w != nullptr) StoreMapGradient(d_w, s.padded, s.d, s.f, p.d_w + bh * s.MapArea());
}

#define TANDEM_STRING_OF(x) #x
#define TANDEM_STRING(x) TANDEM_STRING_OF(x)

template <class T>
constexpr AttentionKernels<T> kTable = {TANDEM_STRING(TANDEM_KERNEL_ISA),
                                        HybridScratch<T>,
                                        HybridForward<T>,
                                        HybridBackwardRun<T>,
                                        HybridTransfer<T>,
                                        SoftmaxScratch<T>,
                                        Softmax<T>,
                                        WeightsScratch<T>,
                                        Weights<T>,
                                        MapScratch<T>,
                                        MapForward<T>,
                                        MapBackward<T>};

}  // namespace

const AttentionKernels<float>& FloatTable() {
  return kTable<float>;
}
const AttentionKernels<double>& DoubleTable() {
  return kTable<double>;
}

}  // namespace tandem::TANDEM_KERNEL_ISA
