// The streamed weights loss and its gradients (method.md §6.1): row tiles ascending against all
// earlier key tiles.
//
// loss_i = -sum_{j<=i} p_ij ln(x_ij + eps) + ln Z_i, y_ij = p_ij / (x_ij + eps), p_ij = exp(s_ij -
// LSE_i). dL/dx_ij = 1 / Z_i - y_ij, so one pass over the tiles gives loss, d_phi_q and d_phi_k;
// Z_i comes from a running sum of phi_k. O(T F) scratch. Weights lie as [key][query lane]. Confined
// to one task; cannot fail.
#pragma once

#include "kernels/cpu/attention.h"
#include "kernels/cpu/feature_map.h"
#include "kernels/cpu/tile.h"

namespace tandem::TANDEM_KERNEL_ISA {

template <class T>
class WeightsTask {
 public:
  WeightsTask(const WeightsProblem<T>& p, int64_t bh, Carver<T>& carver)
      : p_(p),
        tokens_(p.sizes.tokens),
        chunks_((p.sizes.tokens + kTile - 1) / kTile),
        d_(p.sizes.dim),
        padded_(PaddedWidth(p.sizes.dim)),
        f_(p.sizes.map_dim),
        features_(2 * p.sizes.map_dim),
        wide_(PaddedWidth(2 * p.sizes.map_dim)),
        bh_(bh),
        batch_(bh / p.sizes.heads),
        head_(bh % p.sizes.heads),
        kv_head_(head_ / (p.sizes.heads / p.sizes.kv_heads)) {
    keys_ = carver.Take(chunks_ * d_ * kTile);
    phi_k_ = carver.Take(chunks_ * features_ * kTile);
    d_phi_k_ = carver.Take(chunks_ * kTile * wide_);
    query_ = carver.Take(d_ * kTile);
    scaled_query_ = carver.Take(d_ * kTile);
    phi_q_ = carver.Take(features_ * kTile);
    phi_q_rows_ = carver.Take(kTile * wide_);
    d_phi_ = carver.Take(features_ * kTile);
    prefix_ = carver.Take(features_ * kTile);
    sum_ = carver.Take(features_);
    scores_ = carver.Take(kTile * kTile);
    weights_ = carver.Take(kTile * kTile);
    lse_ = carver.Take(kTile);
    inverse_mass_ = carver.Take(kTile);
    row_loss_ = carver.Take(kTile);
    d_u_ = carver.Take(f_ * kTile);
    row_major_ = carver.Take(kTile * padded_);
    d_w_q_ = carver.Take(f_ * padded_);
    d_w_k_ = carver.Take(f_ * padded_);
  }

  void Run() {
    loss_ = 0;
    Zero(d_phi_k_, chunks_ * kTile * wide_);
    Zero(sum_, features_);
    Zero(d_w_q_, f_ * padded_);
    Zero(d_w_k_, f_ * padded_);
    for (int64_t r = 0; r < chunks_; ++r) RunRows(r);
    p_.loss[bh_] = loss_;
    if (Differentiates()) FinishKeys();
  }

 private:
  bool Differentiates() const { return p_.d_phi_q.data != nullptr || p_.d_w_q != nullptr; }
  template <class U>
  U* Sequence(const Rows<U>& rows, int64_t head) const {
    return rows.data + batch_ * rows.batch + head * rows.head;
  }
  const T* MapWeight(const T* w) const { return w + head_ * d_ * f_; }
  T* PhiK(int64_t chunk) const { return phi_k_ + chunk * features_ * kTile; }
  int64_t RowsOf(int64_t chunk) const { return Smaller(kTile, tokens_ - chunk * kTile); }

  void LoadTiles(int64_t r) {
    const int64_t first = r * kTile;
    T* key = keys_ + r * d_ * kTile;
    LoadFeatureMajor(Sequence(p_.k, kv_head_), p_.k.token, first, tokens_, d_, key);
    LoadFeatureMajor(Sequence(p_.q, head_), p_.q.token, first, tokens_, d_, query_);
    const T tau = T{1} / static_cast<T>(__builtin_sqrt(static_cast<double>(d_)));
    for (int64_t i = 0; i < d_ * kTile; i += kLanes<T>)
      Store<T>(scaled_query_ + i, Load(query_ + i) * tau);
    if (p_.w_q != nullptr) {
      MapTile(key, MapWeight(p_.w_k), d_, f_, PhiK(r));
      MapTile(query_, MapWeight(p_.w_q), d_, f_, phi_q_);
    } else {
      LoadFeatureMajor(Sequence(p_.phi_k, head_), p_.phi_k.token, first, tokens_, features_,
                       PhiK(r));
      LoadFeatureMajor(Sequence(p_.phi_q, head_), p_.phi_q.token, first, tokens_, features_,
                       phi_q_);
    }
    // Rows past the end weigh nothing: their infinite normaliser masks every pair.
    for (int64_t i = 0; i < kTile; ++i)
      lse_[i] = i < RowsOf(r) ? p_.lse[bh_ * tokens_ + first + i] : static_cast<T>(1e30);
  }

  void RunRows(int64_t r) {
    LoadTiles(r);
    ComputeNormaliser(r);
    if (Differentiates()) {
      if (wide_ > features_) Zero(phi_q_rows_, kTile * wide_);
      Transpose(phi_q_, kTile, phi_q_rows_, wide_, features_, kTile);
    }
    Zero(d_phi_, features_ * kTile);
    for (int64_t chunk = 0; chunk <= r; ++chunk) RunTile(r, chunk);
    for (int64_t i = 0; i < RowsOf(r); ++i) loss_ += static_cast<double>(row_loss_[i]);
    if (Differentiates()) FinishRows(r);
  }

  // 1 / Z_i, Z_i = phi_q_i . z_i with z_i = sum_{j<=i} phi_k_j, and the loss ln Z_i. Eight running
  // sums at a time: one alone would wait for its own addition. features is a multiple of 16.
  void ComputeNormaliser(int64_t r) {
    constexpr int kChains = 8;
    for (int64_t c = 0; c < features_; c += kChains)
      for (int i = 0; i < kTile; ++i)
        for (int n = 0; n < kChains; ++n)
          prefix_[(c + n) * kTile + i] = sum_[c + n] += PhiK(r)[(c + n) * kTile + i];
    Zero(inverse_mass_, kTile);
    AddRowProducts(phi_q_, prefix_, features_, inverse_mass_);
    for (int i = 0; i < kTile; i += kLanes<T>) {
      Store<T>(row_loss_ + i, Log(Load(inverse_mass_ + i)));
      Store<T>(inverse_mass_ + i, Splat(T{1}) / Load(inverse_mass_ + i));
    }
  }

  void RunTile(int64_t r, int64_t chunk) {
    Product<Into::kSet>(scores_, kTile, {keys_ + chunk * d_ * kTile, 1, kTile}, scaled_query_,
                        kTile, kTile, kTile, d_);
    Product<Into::kSet>(weights_, kTile, {PhiK(chunk), 1, kTile}, phi_q_, kTile, kTile, kTile,
                        features_);
    if (chunk == r)
      for (int64_t j = 0; j < kTile; ++j)
        KeepLanes(scores_ + j * kTile, j, kTile, static_cast<T>(kMasked));
    WeighTile();
    if (!Differentiates()) return;
    Product<Into::kSubtract>(d_phi_, kTile, {PhiK(chunk), kTile, 1}, weights_, kTile, features_,
                             kTile, kTile);
    Product<Into::kSubtract>(d_phi_k_ + chunk * kTile * wide_, wide_, {weights_, kTile, 1},
                             phi_q_rows_, wide_, kTile, wide_, kTile);
  }

  // weights_: x becomes p / (x + eps) - 1 / Z, the negative gradient of the loss by x; row_loss_ -=
  // p ln(x + eps). 0 where masked.
  void WeighTile() {
    constexpr int L = kLanes<T>;
    const Vec<T> epsilon = Splat(static_cast<T>(kFeatureFloor));
    const Vec<T> visible = Splat(static_cast<T>(kMasked / 2));
    const Vec<T> negligible = Splat(static_cast<T>(kNegligible));
    for (int i = 0; i < kTile; i += L) {
      const Vec<T> lse = Load(lse_ + i), inverse_mass = Load(inverse_mass_ + i);
      Vec<T> loss = Load(row_loss_ + i);
      for (int j = 0; j < kTile; ++j) {
        const Vec<T> score = Load(scores_ + j * kTile + i) - lse;
        const Vec<T> p = score <= negligible ? Vec<T>{} : Exp(score);
        const Vec<T> x = Load(weights_ + j * kTile + i) + epsilon;
        loss -= p * Log(x);
        Store<T>(weights_ + j * kTile + i, score <= visible ? Vec<T>{} : p / x - inverse_mass);
      }
      Store<T>(row_loss_ + i, loss);
    }
  }

  void ScaleTile(T* tile, int64_t n) {
    for (int64_t i = 0; i < n; i += kLanes<T>) Store<T>(tile + i, Load(tile + i) * p_.grad_factor);
  }

  void FinishRows(int64_t r) {
    ScaleTile(d_phi_, features_ * kTile);
    if (p_.d_phi_q.data != nullptr)
      StoreFeatureMajor(d_phi_, r * kTile, tokens_, features_, Sequence(p_.d_phi_q, head_),
                        p_.d_phi_q.token);
    if (p_.d_w_q != nullptr) AddMapGradient(phi_q_, p_.q, head_, r, d_w_q_);
  }

  void FinishKeys() {
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      Transpose(d_phi_k_ + chunk * kTile * wide_, wide_, d_phi_, kTile, kTile, features_);
      ScaleTile(d_phi_, features_ * kTile);
      if (p_.d_phi_k.data != nullptr)
        StoreFeatureMajor(d_phi_, chunk * kTile, tokens_, features_, Sequence(p_.d_phi_k, head_),
                          p_.d_phi_k.token);
      if (p_.d_w_k != nullptr) AddMapGradient(PhiK(chunk), p_.k, kv_head_, chunk, d_w_k_);
    }
    const int64_t area = d_ * f_;
    if (p_.d_w_q != nullptr) StoreMapGradient(d_w_q_, padded_, d_, f_, p_.d_w_q + bh_ * area);
    if (p_.d_w_k != nullptr) StoreMapGradient(d_w_k_, padded_, d_, f_, p_.d_w_k + bh_ * area);
  }

  void AddMapGradient(const T* phi, const Rows<const T>& x, int64_t head, int64_t chunk, T* sum) {
    MapBackwardTile(phi, d_phi_, f_, d_u_);
    LoadRowMajor(Sequence(x, head), x.token, chunk * kTile, tokens_, d_, padded_, row_major_);
    Product<Into::kAdd>(sum, padded_, {d_u_, kTile, 1}, row_major_, padded_, f_, padded_, kTile);
  }

  const WeightsProblem<T>& p_;
  const int64_t tokens_, chunks_, d_, padded_, f_, features_, wide_;
  const int64_t bh_, batch_, head_, kv_head_;
  double loss_ = 0;
  T *keys_ = nullptr, *phi_k_ = nullptr, *d_phi_k_ = nullptr, *query_ = nullptr;
  T *scaled_query_ = nullptr, *phi_q_ = nullptr, *phi_q_rows_ = nullptr, *d_phi_ = nullptr;
  T *prefix_ = nullptr, *sum_ = nullptr, *scores_ = nullptr, *weights_ = nullptr, *lse_ = nullptr;
  T *inverse_mass_ = nullptr, *row_loss_ = nullptr, *d_u_ = nullptr, *row_major_ = nullptr;
  T *d_w_q_ = nullptr, *d_w_k_ = nullptr;
};

}  // namespace tandem::TANDEM_KERNEL_ISA
