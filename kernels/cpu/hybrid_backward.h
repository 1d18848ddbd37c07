// The exact backward of hybrid attention (method.md §5) in two sweeps.
//
// Row sweep, ascending, right after a row tile's weights: everything that needs the prefix state
// (d_phi_q, d_q, the row sums R) and the band's share of the key gradients. Key sweep, descending:
// the suffix state G = sum phi_q u^T, h = sum beta phi_q gives the rest of d_phi_k and d_v, then
// the maps' backward. Of each row tile the key sweep keeps phi_q, u and beta: O(T). What a row
// gives to the factor and to the maximum is R_i = -phi_q_i . d_phi_q_i, so a step that trains only
// maps and factors never differentiates the softmax. Confined to one task; cannot fail.
#pragma once

#include "kernels/cpu/hybrid_forward.h"

namespace tandem::TANDEM_KERNEL_ISA {

template <class T>
class HybridBackward {
 public:
  HybridBackward(const HybridProblem<T>& p, const HybridPlan<T>& plan, const HybridGradients<T>& g,
                 HybridKeys<T>& keys, HybridRows<T>& rows, Carver<T>& carver)
      : p_(p), plan_(plan), g_(g), keys_(keys), rows_(rows) {
    const int64_t d = plan.d, n = plan.chunks, wide = plan.features * kTile;
    u_ = carver.Take(d * kTile);
    u_rows_ = carver.Take(n * kTile * plan.padded);
    beta_ = carver.Take(n * kTile);
    product_ = carver.Take(kTile * kTile);
    turned_ = carver.Take(kTile * kTile);
    row_major_ = carver.Take(kTile * plan.padded);
    d_feature_ = carver.Take(d * kTile);
    correction_ = carver.Take(kTile);
    d_query_ = carver.Take(d * kTile);
    d_keys_ = carver.Take(n * kTile * plan.padded);
    d_values_ = carver.Take(n * kTile * plan.padded);
    phi_q_ = carver.Take(n * wide);
    if (!plan.linear) return;
    d_phi_q_ = carver.Take(wide);
    d_phi_k_ = carver.Take(n * wide);
    d_u_ = carver.Take(plan.f * kTile);
    state_ = carver.Take(plan.features * plan.padded);
    mass_ = carver.Take(plan.features);
    d_w_q_ = carver.Take(plan.f * plan.padded);
    d_w_k_ = carver.Take(plan.f * plan.padded);
  }

  void Start() {
    const int64_t n = plan_.chunks;
    factor_sum_ = 0;
    if (WantsKeys()) Zero(d_keys_, n * kTile * plan_.padded);
    if (g_.d_v.data != nullptr) Zero(d_values_, n * kTile * plan_.padded);
    if (!plan_.linear) return;
    Zero(d_phi_k_, n * plan_.features * kTile);
    Zero(d_w_q_, plan_.f * plan_.padded);
    Zero(d_w_k_, plan_.f * plan_.padded);
  }

  // Where the features of row tile r live; the forward writes them.
  T* PhiQ(int64_t r) const { return phi_q_ + r * plan_.features * kTile; }

  // The row sweep's step: y and d_y [d][kTile] of row tile r, d_y zero past the end of the
  // sequence.
  void BackwardRows(int64_t r, const T* y, const T* d_y) {
    row_ = r;
    ComputeUpstream(y, d_y);
    if (plan_.linear) {
      Zero(d_phi_q_, plan_.features * kTile);
      if (keys_.folded() > 0) AddStateGradient();
    }
    for (int64_t t = 0; t < rows_.num_tiles(); ++t)
      if (rows_.tile(t).linear != nullptr) BackwardLinearTile(rows_.tile(t));
    SumFactor();
    Zero(d_query_, plan_.d * kTile);
    if (plan_.softmax && WantsSoftmax()) BackwardSoftmax();
    if (g_.d_v.data != nullptr) AddBandValues();
    FinishQueries();
  }

  // The key sweep and all results that need it.
  void BackwardKeys() {
    if (plan_.linear) {
      Zero(state_, plan_.features * plan_.padded);
      Zero(mass_, plan_.features);
    }
    int64_t next = plan_.chunks - 1;  // the next row tile to fold
    for (int64_t chunk = plan_.chunks - 1; chunk >= 0; --chunk) {
      for (; plan_.linear && next >= plan_.StateRowsOf(chunk); --next) FoldRows(next);
      FinishKeys(chunk, next + 1 < plan_.chunks);
    }
    const int64_t head = keys_.batch() * p_.sizes.heads + keys_.head();
    const int64_t area = plan_.MapArea();
    if (g_.d_w_q != nullptr)
      StoreMapGradient(d_w_q_, plan_.padded, plan_.d, plan_.f, g_.d_w_q + head * area);
    if (g_.d_w_k != nullptr)
      StoreMapGradient(d_w_k_, plan_.padded, plan_.d, plan_.f, g_.d_w_k + head * area);
    if (g_.d_gamma != nullptr)
      g_.d_gamma[head] = static_cast<T>(factor_sum_ / static_cast<double>(p_.gamma[keys_.head()]));
  }

 private:
  bool WantsKeys() const { return g_.d_k.data != nullptr; }
  bool WantsSoftmax() const { return WantsKeys() || g_.d_q.data != nullptr; }
  T* URows(int64_t r) const { return u_rows_ + r * kTile * plan_.padded; }
  T* DPhiK(int64_t chunk) const { return d_phi_k_ + chunk * plan_.features * kTile; }
  T* DKey(int64_t chunk) const { return d_keys_ + chunk * kTile * plan_.padded; }
  T* DValue(int64_t chunk) const { return d_values_ + chunk * kTile * plan_.padded; }
  T* Beta() const { return beta_ + row_ * kTile; }

  // u = d_y / D, beta = (d_y . y) / D.
  void ComputeUpstream(const T* y, const T* d_y) {
    const T* total = rows_.total();
    Zero(Beta(), kTile);
    AddRowProducts(y, d_y, plan_.d, Beta());
    for (int i = 0; i < kTile; i += kLanes<T>) {
      const Vec<T> inverse = Splat(T{1}) / Load(total + i);
      Store<T>(Beta() + i, Load(Beta() + i) * inverse);
      for (int64_t c = 0; c < plan_.d; ++c)
        Store<T>(u_ + c * kTile + i, Load(d_y + c * kTile + i) * inverse);
    }
    if (plan_.padded > plan_.d) Zero(URows(row_), kTile * plan_.padded);
    Transpose(u_, kTile, URows(row_), plan_.padded, plan_.d, kTile);
  }

  // d_phi_q += S u - beta z
  void AddStateGradient() {
    Product<Into::kAdd>(d_phi_q_, kTile, {keys_.state(), plan_.padded, 1}, u_, kTile,
                        plan_.features, kTile, plan_.d);
    for (int64_t r = 0; r < plan_.features; ++r)
      for (int i = 0; i < kTile; i += kLanes<T>) {
        T* to = d_phi_q_ + r * kTile + i;
        Store<T>(to, Load(to) - Load(Beta() + i) * keys_.mass()[r]);
      }
  }

  // product_[j][i] = u_i . v_j - beta_i
  void ComputePairs(int64_t chunk) {
    Product<Into::kSet>(product_, kTile, {keys_.Value(chunk), plan_.padded, 1}, u_, kTile, kTile,
                        kTile, plan_.d);
    for (int64_t j = 0; j < kTile; ++j)
      for (int i = 0; i < kTile; i += kLanes<T>) {
        T* to = product_ + j * kTile + i;
        Store<T>(to, Load(to) - Load(Beta() + i));
      }
  }

  void BackwardLinearTile(const WeightTile<T>& tile) {
    ComputePairs(tile.chunk);
    for (int64_t j = 0; j < kTile; ++j) {
      int64_t low = 0, high = 0;
      rows_.LinearLanes(tile.chunk * kTile + j, &low, &high);
      KeepLanes(product_ + j * kTile, low, high, T{0});
    }
    Product<Into::kAdd>(d_phi_q_, kTile, {keys_.Phi(tile.chunk), kTile, 1}, product_, kTile,
                        plan_.features, kTile, kTile);
    Transpose(product_, kTile, turned_, kTile, kTile, kTile);
    Product<Into::kAdd>(DPhiK(tile.chunk), kTile, {PhiQ(row_), kTile, 1}, turned_, kTile,
                        plan_.features, kTile, kTile);
  }

  // correction_ = R_i = -phi_q_i . d_phi_q_i, which also is gamma's gradient times gamma.
  void SumFactor() {
    Zero(correction_, kTile);
    if (!plan_.linear) return;
    AddRowProducts(PhiQ(row_), d_phi_q_, plan_.features, correction_);
    for (int i = 0; i < kTile; ++i) {
      correction_[i] = -correction_[i];
      factor_sum_ += static_cast<double>(correction_[i]);
    }
  }

  // t = e (u . v - beta); the maximum's share goes to the first key that attains it.
  void BackwardSoftmax() {
    const T tau = T{1} / static_cast<T>(__builtin_sqrt(static_cast<double>(plan_.d)));
    if (WantsKeys())
      LoadRowMajor(keys_.Sequence(p_.q, keys_.head()), p_.q.token, row_ * kTile, plan_.tokens,
                   plan_.d, plan_.padded, row_major_);
    bool placed[kTile] = {};
    for (int64_t t = 0; t < rows_.num_tiles(); ++t) {
      const WeightTile<T>& tile = rows_.tile(t);
      if (tile.softmax == nullptr) continue;
      ComputePairs(tile.chunk);
      for (int i = 0; i < kTile * kTile; i += kLanes<T>)
        Store<T>(product_ + i, Load(product_ + i) * Load(tile.softmax + i) * tau);
      if (!p_.detach_max && plan_.linear) SubtractAtMaximum(tile.softmax, tau, placed);
      Product<Into::kAdd>(d_query_, kTile, {keys_.Key(tile.chunk), kTile, 1}, product_, kTile,
                          plan_.d, kTile, kTile);
      if (WantsKeys())
        Product<Into::kAdd>(DKey(tile.chunk), plan_.padded, {product_, kTile, 1}, row_major_,
                            plan_.padded, kTile, plan_.padded, kTile);
    }
  }

  // The largest weight of a row is gamma itself, exp(0).
  void SubtractAtMaximum(const T* weights, T tau, bool* placed) {
    const T gamma = p_.gamma[keys_.head()];
    for (int64_t j = 0; j < kTile; ++j)
      for (int i = 0; i < kTile; ++i)
        if (weights[j * kTile + i] == gamma && !placed[i]) {
          placed[i] = true;
          product_[j * kTile + i] -= correction_[i] * tau;
        }
  }

  // d_v += (e + x)^T u of the band
  void AddBandValues() {
    for (int64_t t = 0; t < rows_.num_tiles(); ++t) {
      const WeightTile<T>& tile = rows_.tile(t);
      Product<Into::kAdd>(DValue(tile.chunk), plan_.padded, {rows_.Merged(tile), kTile, 1},
                          URows(row_), plan_.padded, kTile, plan_.padded, kTile);
    }
  }

  // Sends d_phi_q and the softmax part to where they were asked for.
  void FinishQueries() {
    const int64_t first = row_ * kTile;
    if (plan_.linear && g_.d_phi_q.data != nullptr)
      StoreFeatureMajor(d_phi_q_, first, plan_.tokens, plan_.features,
                        keys_.Sequence(g_.d_phi_q, keys_.head()), g_.d_phi_q.token);
    if (p_.w_q != nullptr && (g_.d_w_q != nullptr || g_.d_q.data != nullptr)) {
      MapBackwardTile(PhiQ(row_), d_phi_q_, plan_.f, d_u_);
      if (g_.d_w_q != nullptr) AddGradientOfMap(p_.q, keys_.head(), row_, d_w_q_);
      if (g_.d_q.data != nullptr)
        Product<Into::kAdd>(d_query_, kTile, {keys_.MapWeight(p_.w_q), plan_.f, 1}, d_u_, kTile,
                            plan_.d, kTile, plan_.f);
    }
    if (g_.d_q.data != nullptr)
      StoreFeatureMajor(d_query_, first, plan_.tokens, plan_.d,
                        keys_.Sequence(g_.d_q, keys_.head()), g_.d_q.token);
  }

  void AddGradientOfMap(const Rows<const T>& x, int64_t head, int64_t chunk, T* sum) {
    AddMapGradient(plan_, d_u_, keys_.Sequence(x, head), x.token, chunk, row_major_, sum);
  }

  // G += phi_q^T u, h += beta phi_q of row tile r.
  void FoldRows(int64_t r) {
    Product<Into::kAdd>(state_, plan_.padded, {PhiQ(r), kTile, 1}, URows(r), plan_.padded,
                        plan_.features, plan_.padded, kTile);
    AddLaneSums(PhiQ(r), beta_ + r * kTile, plan_.features, mass_);
  }

  void FinishKeys(int64_t chunk, bool has_state) {
    const int64_t first = chunk * kTile;
    if (plan_.linear && has_state) AddKeyState(chunk);
    if (plan_.linear && !plan_.span_all && plan_.sinks > first)
      for (int64_t r = 0; r < plan_.features; ++r)
        KeepLanes(DPhiK(chunk) + r * kTile, plan_.sinks - first, kTile, T{0});
    if (plan_.linear && g_.d_phi_k.data != nullptr)
      StoreFeatureMajor(DPhiK(chunk), first, plan_.tokens, plan_.features,
                        keys_.Sequence(g_.d_phi_k, keys_.head()), g_.d_phi_k.token);
    if (p_.w_k != nullptr && (g_.d_w_k != nullptr || WantsKeys())) FinishKeyMap(chunk);
    if (WantsKeys())
      StoreRowMajor(DKey(chunk), plan_.padded, first, plan_.tokens, plan_.d,
                    keys_.Sequence(g_.d_k, keys_.head()), g_.d_k.token);
    if (g_.d_v.data != nullptr)
      StoreRowMajor(DValue(chunk), plan_.padded, first, plan_.tokens, plan_.d,
                    keys_.Sequence(g_.d_v, keys_.head()), g_.d_v.token);
  }

  // d_phi_k += G v - h, d_v += G^T phi_k
  void AddKeyState(int64_t chunk) {
    Transpose(keys_.Value(chunk), plan_.padded, d_feature_, kTile, kTile, plan_.d);
    Product<Into::kAdd>(DPhiK(chunk), kTile, {state_, plan_.padded, 1}, d_feature_, kTile,
                        plan_.features, kTile, plan_.d);
    for (int64_t r = 0; r < plan_.features; ++r)
      for (int i = 0; i < kTile; i += kLanes<T>) {
        T* to = DPhiK(chunk) + r * kTile + i;
        Store<T>(to, Load(to) - mass_[r]);
      }
    if (g_.d_v.data != nullptr)
      Product<Into::kAdd>(DValue(chunk), plan_.padded, {keys_.Phi(chunk), 1, kTile}, state_,
                          plan_.padded, kTile, plan_.padded, plan_.features);
  }

  void FinishKeyMap(int64_t chunk) {
    MapBackwardTile(keys_.Phi(chunk), DPhiK(chunk), plan_.f, d_u_);
    if (g_.d_w_k != nullptr) AddGradientOfMap(p_.k, keys_.kv_head(), chunk, d_w_k_);
    if (!WantsKeys()) return;
    Product<Into::kSet>(d_feature_, kTile, {keys_.MapWeight(p_.w_k), plan_.f, 1}, d_u_, kTile,
                        plan_.d, kTile, plan_.f);
    for (int64_t c = 0; c < plan_.d; ++c)
      for (int64_t i = 0; i < kTile; ++i)
        DKey(chunk)[i * plan_.padded + c] += d_feature_[c * kTile + i];
  }

  const HybridProblem<T>& p_;
  const HybridPlan<T>& plan_;
  const HybridGradients<T>& g_;
  HybridKeys<T>& keys_;
  HybridRows<T>& rows_;
  int64_t row_ = 0;
  double factor_sum_ = 0;
  T *u_ = nullptr, *u_rows_ = nullptr, *beta_ = nullptr, *product_ = nullptr, *turned_ = nullptr;
  T *row_major_ = nullptr, *d_feature_ = nullptr, *correction_ = nullptr, *d_query_ = nullptr;
  T *d_keys_ = nullptr, *d_values_ = nullptr, *phi_q_ = nullptr, *d_phi_q_ = nullptr;
  T *d_phi_k_ = nullptr, *d_u_ = nullptr, *state_ = nullptr, *mass_ = nullptr;
  T *d_w_q_ = nullptr, *d_w_k_ = nullptr;
};

}  // namespace tandem::TANDEM_KERNEL_ISA
