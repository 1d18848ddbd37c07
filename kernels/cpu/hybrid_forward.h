// Hybrid attention on one row tile, forward (method.md §3, §4): softmax weights e and linear
// weights x of the band, the state's share, and one shared denominator. Results stay in scratch for
// the backward pass. Tiles of weights are [key][query lane]. Confined to one task; cannot fail.
#pragma once

#include "kernels/cpu/hybrid_state.h"

namespace tandem::TANDEM_KERNEL_ISA {

// One key chunk met by the current row tile; null where the chunk has no such weights.
template <class T>
struct WeightTile {
  int64_t chunk;
  T* softmax;  // e_ij, [kTile keys][kTile queries]
  T* linear;   // x_ij
};

template <class T>
class HybridRows {
 public:
  HybridRows(const HybridProblem<T>& p, const HybridPlan<T>& plan, HybridKeys<T>& keys,
             Carver<T>& carver, WeightTile<T>* tiles)
      : p_(p), plan_(plan), keys_(keys), tiles_(tiles) {
    if (plan.softmax) scaled_query_ = carver.Take(plan.d * kTile);
    if (plan.softmax || p.w_q != nullptr) query_ = carver.Take(plan.d * kTile);
    const int64_t area = kTile * kTile;
    if (plan.softmax) softmax_ = carver.Take((plan.BandTiles() + plan.SinkChunks()) * area);
    if (plan.linear) linear_ = carver.Take(plan.BandTiles() * area);
    merged_ = carver.Take(area);
    out_ = carver.Take(plan.d * kTile);
    top_ = carver.Take(kTile);
    linear_mass_ = carver.Take(kTile);
    total_ = carver.Take(kTile);
  }

  static int64_t MaxTiles(const HybridPlan<T>& plan) {
    return plan.BandTiles() + plan.SinkChunks();
  }

  // Everything up to the weights and denominators of row tile r; phi_q [F][kTile] receives its
  // features. The caller has loaded the key chunks up to r.
  void ComputeWeights(int64_t r, T* phi_q) {
    row_ = r;
    phi_q_ = phi_q;
    LoadQueries();
    ListTiles();
    Zero(total_, kTile);
    Zero(linear_mass_, kTile);
    if (plan_.softmax) ComputeSoftmax();
    if (plan_.linear) ComputeLinear();
    const Vec<T> epsilon = Splat(p_.epsilon);
    for (int i = 0; i < kTile; i += kLanes<T>)
      Store<T>(total_ + i, Load(total_ + i) + Load(linear_mass_ + i) + epsilon);
  }

  // out()[d][kTile] = y of the row tile.
  void ComputeOutput() {
    Zero(out_, plan_.d * kTile);
    const bool split = p_.v_linear.data != nullptr;
    for (int64_t t = 0; t < num_tiles_; ++t) {
      const WeightTile<T>& tile = tiles_[t];
      if (split) {
        if (tile.softmax != nullptr) AddValues(keys_.Value(tile.chunk), tile.softmax);
        if (tile.linear != nullptr) AddValues(keys_.LinearValue(tile.chunk), tile.linear);
      } else {
        AddValues(keys_.Value(tile.chunk), Merged(tile));
      }
    }
    if (plan_.linear && keys_.folded() > 0)
      Product<Into::kAdd>(out_, kTile, {keys_.state(), 1, plan_.padded}, phi_q_, kTile, plan_.d,
                          kTile, plan_.features);
    for (int64_t c = 0; c < plan_.d; ++c)
      for (int i = 0; i < kTile; i += kLanes<T>) {
        T* y = out_ + c * kTile + i;
        Store<T>(y, Load(y) / Load(total_ + i));
      }
  }

  // e + x of a tile.
  const T* Merged(const WeightTile<T>& tile) {
    if (tile.softmax == nullptr) return tile.linear;
    if (tile.linear == nullptr) return tile.softmax;
    for (int i = 0; i < kTile * kTile; i += kLanes<T>)
      Store<T>(merged_ + i, Load(tile.softmax + i) + Load(tile.linear + i));
    return merged_;
  }

  // Lanes (queries) of key row j for which the pair belongs to the softmax set: [low, high).
  void SoftmaxLanes(int64_t j, int64_t* low, int64_t* high) const {
    *low = j - row_ * kTile;
    *high = j < plan_.sinks ? kTile : *low + plan_.window;
  }
  void LinearLanes(int64_t j, int64_t* low, int64_t* high) const {
    *low = j - row_ * kTile + (plan_.span_all ? 0 : plan_.window);
    *high = kTile;
  }

  int64_t num_tiles() const { return num_tiles_; }
  const WeightTile<T>& tile(int64_t t) const { return tiles_[t]; }
  const T* query() const { return query_; }
  const T* scaled_query() const { return scaled_query_; }
  T* out() const { return out_; }
  const T* top() const { return top_; }
  const T* total() const { return total_; }
  const T* linear_mass() const { return linear_mass_; }

 private:
  void LoadQueries() {
    const int64_t first = row_ * kTile;
    if (query_ != nullptr)
      LoadFeatureMajor(keys_.Sequence(p_.q, keys_.head()), p_.q.token, first, plan_.tokens, plan_.d,
                       query_);
    if (plan_.softmax) ScaleQueries(plan_, query_, scaled_query_);
    if (!plan_.linear) return;
    if (p_.w_q != nullptr) {
      MapTile(query_, keys_.MapWeight(p_.w_q), plan_.d, plan_.f, phi_q_);
    } else {
      LoadFeatureMajor(keys_.Sequence(p_.phi_q, keys_.head()), p_.phi_q.token, first, plan_.tokens,
                       plan_.features, phi_q_);
    }
  }

  // Sinks first, then the band: ascending keys, so that the first of equal maxima is the earliest
  // key.
  void ListTiles() {
    num_tiles_ = 0;
    T* softmax = softmax_;
    T* linear = linear_;
    const int64_t start = plan_.BandStart(row_);
    for (int64_t chunk = 0; chunk <= row_; ++chunk) {
      if (chunk < start && chunk >= plan_.SinkChunks()) {
        chunk = start;
      }
      const bool has_softmax = plan_.softmax && plan_.HasSoftmax(row_, chunk);
      const bool has_linear = chunk >= start && plan_.HasLinear(row_, chunk);
      if (!has_softmax && !has_linear) continue;
      tiles_[num_tiles_++] = {chunk, has_softmax ? softmax : nullptr,
                              has_linear ? linear : nullptr};
      if (has_softmax) softmax += kTile * kTile;
      if (has_linear) linear += kTile * kTile;
    }
  }

  void ComputeSoftmax() {
    constexpr int L = kLanes<T>;
    for (int i = 0; i < kTile; ++i) top_[i] = static_cast<T>(kMasked);
    for (int64_t t = 0; t < num_tiles_; ++t) {
      T* s = tiles_[t].softmax;
      if (s == nullptr) continue;
      const int64_t chunk = tiles_[t].chunk;
      Product<Into::kSet>(s, kTile, {keys_.Key(chunk), 1, kTile}, scaled_query_, kTile, kTile,
                          kTile, plan_.d);
      for (int64_t j = 0; j < kTile; ++j) {
        int64_t low = 0, high = 0;
        SoftmaxLanes(chunk * kTile + j, &low, &high);
        KeepLanes(s + j * kTile, low, high, static_cast<T>(kMasked));
        for (int i = 0; i < kTile; i += L)
          Store<T>(top_ + i, Max(Load(top_ + i), Load(s + j * kTile + i)));
      }
    }
    const T gamma = plan_.linear ? p_.gamma[keys_.head()] : T{1};
    for (int64_t t = 0; t < num_tiles_; ++t)
      if (tiles_[t].softmax != nullptr) Exponentiate(tiles_[t].softmax, gamma);
  }

  // e = gamma exp(s - c), exactly 0 where masked or negligible; P adds up in total_.
  void Exponentiate(T* s, T gamma) {
    constexpr int L = kLanes<T>;
    const Vec<T> negligible = Splat(static_cast<T>(kNegligible));
    for (int i = 0; i < kTile; i += L) {
      const Vec<T> top = Load(top_ + i);
      Vec<T> sum = Load(total_ + i);
      for (int64_t j = 0; j < kTile; ++j) {
        const Vec<T> below = Load(s + j * kTile + i) - top;
        const Vec<T> e = below <= negligible ? Vec<T>{} : Exp(below) * gamma;
        sum += e;
        Store<T>(s + j * kTile + i, e);
      }
      Store<T>(total_ + i, sum);
    }
  }

  // x = phi_q . phi_k of the band; Z adds up in linear_mass_, with the state's part.
  void ComputeLinear() {
    if (keys_.folded() > 0) AddWeightedRows(phi_q_, keys_.mass(), plan_.features, linear_mass_);
    for (int64_t t = 0; t < num_tiles_; ++t) {
      T* x = tiles_[t].linear;
      if (x == nullptr) continue;
      const int64_t chunk = tiles_[t].chunk;
      Product<Into::kSet>(x, kTile, {keys_.Phi(chunk), 1, kTile}, phi_q_, kTile, kTile, kTile,
                          plan_.features);
      for (int64_t j = 0; j < kTile; ++j) {
        int64_t low = 0, high = 0;
        LinearLanes(chunk * kTile + j, &low, &high);
        KeepLanes(x + j * kTile, low, high, T{0});
        for (int i = 0; i < kTile; i += kLanes<T>)
          Store<T>(linear_mass_ + i, Load(linear_mass_ + i) + Load(x + j * kTile + i));
      }
    }
  }

  // out += V^T weights
  void AddValues(const T* values, const T* weights) {
    Product<Into::kAdd>(out_, kTile, {values, 1, plan_.padded}, weights, kTile, plan_.d, kTile,
                        kTile);
  }

  const HybridProblem<T>& p_;
  const HybridPlan<T>& plan_;
  HybridKeys<T>& keys_;
  WeightTile<T>* tiles_;
  int64_t num_tiles_ = 0, row_ = 0;
  T* phi_q_ = nullptr;
  T* query_ = nullptr;
  T* scaled_query_ = nullptr;
  T* softmax_ = nullptr;
  T* linear_ = nullptr;
  T* merged_ = nullptr;
  T* out_ = nullptr;
  T* top_ = nullptr;
  T* linear_mass_ = nullptr;
  T* total_ = nullptr;
};

}  // namespace tandem::TANDEM_KERNEL_ISA
