// The streamed weights loss and its gradients (method.md §6.1): row tiles ascending against all
// earlier key tiles.
//
// loss_i = -sum_{j<=i} p_ij ln(x_ij + eps) + ln Z_i, y_ij = p_ij / (x_ij + eps), p_ij = exp(s_ij -
// LSE_i). dL/dx_ij = 1 / Z_i - y_ij, so one pass over the tiles gives loss, d_phi_q and d_phi_k;
// Z_i comes from a running sum of phi_k. O(T F) scratch. Weights lie as [key][query lane]. Confined
// to one task; cannot fail.
#pragma once

#include "kernels/cpu/feature_map.h"
#include "kernels/cpu/task.h"

namespace tandem::TANDEM_KERNEL_ISA {

template <class T>
class WeightsTask {
 public:
  WeightsTask(const WeightsProblem<T>& p, int64_t bh, Carver<T>& carver)
      : p_(p), s_(p.sizes), at_(p.sizes, bh), wide_(PaddedWidth(s_.features)) {
    keys_ = carver.Take(s_.chunks * s_.d * kTile);
    phi_k_ = carver.Take(s_.chunks * s_.features * kTile);
    d_phi_k_ = carver.Take(s_.chunks * kTile * wide_);
    query_ = carver.Take(s_.d * kTile);
    scaled_query_ = carver.Take(s_.d * kTile);
    phi_q_ = carver.Take(s_.features * kTile);
    phi_q_rows_ = carver.Take(kTile * wide_);
    d_phi_ = carver.Take(s_.features * kTile);
    prefix_ = carver.Take(s_.features * kTile);
    sum_ = carver.Take(s_.features);
    scores_ = carver.Take(kTile * kTile);
    weights_ = carver.Take(kTile * kTile);
    lse_ = carver.Take(kTile);
    inverse_mass_ = carver.Take(kTile);
    row_loss_ = carver.Take(kTile);
    d_u_ = carver.Take(s_.f * kTile);
    row_major_ = carver.Take(kTile * s_.padded);
    d_w_q_ = carver.Take(s_.f * s_.padded);
    d_w_k_ = carver.Take(s_.f * s_.padded);
  }

  void Run() {
    loss_ = 0;
    Zero(d_phi_k_, s_.chunks * kTile * wide_);
    Zero(sum_, s_.features);
    Zero(d_w_q_, s_.f * s_.padded);
    Zero(d_w_k_, s_.f * s_.padded);
    for (int64_t r = 0; r < s_.chunks; ++r) RunRows(r);
    p_.loss[at_.bh] = loss_;
    if (Differentiates()) FinishKeys();
  }

 private:
  bool Differentiates() const { return p_.d_phi_q.data != nullptr || p_.d_w_q != nullptr; }
  const T* MapWeight(const T* w) const { return w + at_.head * s_.MapArea(); }
  T* PhiK(int64_t chunk) const { return phi_k_ + chunk * s_.features * kTile; }

  void LoadTiles(int64_t r) {
    const int64_t first = r * kTile;
    T* key = keys_ + r * s_.d * kTile;
    LoadFeatureMajor(at_.Sequence(p_.k, at_.kv_head), p_.k.token, first, s_.tokens, s_.d, key);
    LoadFeatureMajor(at_.Sequence(p_.q, at_.head), p_.q.token, first, s_.tokens, s_.d, query_);
    ScaleQueries(s_, query_, scaled_query_);
    if (p_.w_q != nullptr) {
      MapTile(key, MapWeight(p_.w_k), s_.d, s_.f, PhiK(r));
      MapTile(query_, MapWeight(p_.w_q), s_.d, s_.f, phi_q_);
    } else {
      LoadFeatureMajor(at_.Sequence(p_.phi_k, at_.head), p_.phi_k.token, first, s_.tokens,
                       s_.features, PhiK(r));
      LoadFeatureMajor(at_.Sequence(p_.phi_q, at_.head), p_.phi_q.token, first, s_.tokens,
                       s_.features, phi_q_);
    }
    // Rows past the end weigh nothing: their infinite normaliser masks every pair.
    for (int64_t i = 0; i < kTile; ++i)
      lse_[i] = i < s_.RowsOf(r) ? p_.lse[at_.bh * s_.tokens + first + i] : static_cast<T>(1e30);
  }

  void RunRows(int64_t r) {
    LoadTiles(r);
    ComputeNormaliser(r);
    if (Differentiates()) {
      if (wide_ > s_.features) Zero(phi_q_rows_, kTile * wide_);
      Transpose(phi_q_, kTile, phi_q_rows_, wide_, s_.features, kTile);
    }
    Zero(d_phi_, s_.features * kTile);
    for (int64_t chunk = 0; chunk <= r; ++chunk) RunTile(r, chunk);
    for (int64_t i = 0; i < s_.RowsOf(r); ++i) loss_ += static_cast<double>(row_loss_[i]);
    if (Differentiates()) FinishRows(r);
  }

  // 1 / Z_i, Z_i = phi_q_i . z_i with z_i = sum_{j<=i} phi_k_j, and the loss ln Z_i. Eight running
  // sums at a time: one alone would wait for its own addition. features is a multiple of 16.
  void ComputeNormaliser(int64_t r) {
    constexpr int kChains = 8;
    for (int64_t c = 0; c < s_.features; c += kChains)
      for (int i = 0; i < kTile; ++i)
        for (int n = 0; n < kChains; ++n)
          prefix_[(c + n) * kTile + i] = sum_[c + n] += PhiK(r)[(c + n) * kTile + i];
    Zero(inverse_mass_, kTile);
    AddRowProducts(phi_q_, prefix_, s_.features, inverse_mass_);
    for (int i = 0; i < kTile; i += kLanes<T>) {
      Store<T>(row_loss_ + i, Log(Load(inverse_mass_ + i)));
      Store<T>(inverse_mass_ + i, Splat(T{1}) / Load(inverse_mass_ + i));
    }
  }

  void RunTile(int64_t r, int64_t chunk) {
    Product<Into::kSet>(scores_, kTile, {keys_ + chunk * s_.d * kTile, 1, kTile}, scaled_query_,
                        kTile, kTile, kTile, s_.d);
    Product<Into::kSet>(weights_, kTile, {PhiK(chunk), 1, kTile}, phi_q_, kTile, kTile, kTile,
                        s_.features);
    if (chunk == r)
      for (int64_t j = 0; j < kTile; ++j)
        KeepLanes(scores_ + j * kTile, j, kTile, static_cast<T>(kMasked));
    WeighTile();
    if (!Differentiates()) return;
    Product<Into::kSubtract>(d_phi_, kTile, {PhiK(chunk), kTile, 1}, weights_, kTile, s_.features,
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

  void FinishRows(int64_t r) {
    ScaleTile(d_phi_, s_.features * kTile, p_.grad_factor, d_phi_);
    if (p_.d_phi_q.data != nullptr)
      StoreFeatureMajor(d_phi_, r * kTile, s_.tokens, s_.features,
                        at_.Sequence(p_.d_phi_q, at_.head), p_.d_phi_q.token);
    if (p_.d_w_q != nullptr) AddGradientOfMap(phi_q_, p_.q, at_.head, r, d_w_q_);
  }

  void FinishKeys() {
    for (int64_t chunk = 0; chunk < s_.chunks; ++chunk) {
      Transpose(d_phi_k_ + chunk * kTile * wide_, wide_, d_phi_, kTile, kTile, s_.features);
      ScaleTile(d_phi_, s_.features * kTile, p_.grad_factor, d_phi_);
      if (p_.d_phi_k.data != nullptr)
        StoreFeatureMajor(d_phi_, chunk * kTile, s_.tokens, s_.features,
                          at_.Sequence(p_.d_phi_k, at_.head), p_.d_phi_k.token);
      if (p_.d_w_k != nullptr) AddGradientOfMap(PhiK(chunk), p_.k, at_.kv_head, chunk, d_w_k_);
    }
    if (p_.d_w_q != nullptr)
      StoreMapGradient(d_w_q_, s_.padded, s_.d, s_.f, p_.d_w_q + at_.bh * s_.MapArea());
    if (p_.d_w_k != nullptr)
      StoreMapGradient(d_w_k_, s_.padded, s_.d, s_.f, p_.d_w_k + at_.bh * s_.MapArea());
  }

  void AddGradientOfMap(const T* phi, const Rows<const T>& x, int64_t head, int64_t chunk, T* sum) {
    MapBackwardTile(phi, d_phi_, s_.f, d_u_);
    AddMapGradient(s_, d_u_, at_.Sequence(x, head), x.token, chunk, row_major_, sum);
  }

  const WeightsProblem<T>& p_;
  const TileSizes s_;
  const TaskPlace at_;
  const int64_t wide_;  // of a row-major tile of features
  double loss_ = 0;
  T *keys_ = nullptr, *phi_k_ = nullptr, *d_phi_k_ = nullptr, *query_ = nullptr;
  T *scaled_query_ = nullptr, *phi_q_ = nullptr, *phi_q_rows_ = nullptr, *d_phi_ = nullptr;
  T *prefix_ = nullptr, *sum_ = nullptr, *scores_ = nullptr, *weights_ = nullptr, *lse_ = nullptr;
  T *inverse_mass_ = nullptr, *row_loss_ = nullptr, *d_u_ = nullptr, *row_major_ = nullptr;
  T *d_w_q_ = nullptr, *d_w_k_ = nullptr;
};

}  // namespace tandem::TANDEM_KERNEL_ISA
