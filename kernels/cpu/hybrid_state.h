// What one task of hybrid attention holds: the sizes, the scratch and the key side of the chunked
// algorithm.
//
// Chunks of kTile tokens serve as row tiles, key tiles and state intervals (method.md §4 with R = C
// = 64). The state S = sum phi_k v^T, z = sum phi_k covers the chunks that are linear for every row
// of a row tile; the band between the state and the diagonal goes by tiles with masks. Confined to
// one task; cannot fail.
#pragma once

#include "kernels/cpu/feature_map.h"
#include "kernels/cpu/task.h"

namespace tandem::TANDEM_KERNEL_ISA {

// The sizes that follow from a problem, and which keys meet which rows.
template <class T>
struct HybridPlan : TileSizes {
  explicit HybridPlan(const HybridProblem<T>& p)
      : TileSizes(p.sizes),
        window(Smaller(p.window, chunks * kTile)),
        sinks(Smaller(p.sinks, p.sizes.tokens)),
        softmax(p.window > 0 || p.sinks > 0),
        linear(p.linear),
        span_all(p.span_all) {}

  // Key chunks below it lie outside the window for every row of tile r.
  int64_t BandStart(int64_t r) const {
    const int64_t first = r * kTile - window + 1;
    return first <= 0 ? 0 : first / kTile;
  }
  // Row tiles from it on see every key of the chunk through the state.
  int64_t StateRowsOf(int64_t chunk) const {
    return (chunk * kTile + kTile - 1 + window + kTile - 1) / kTile;
  }
  int64_t SinkChunks() const { return (sinks + kTile - 1) / kTile; }
  int64_t BandTiles() const { return Smaller(chunks, (window + kTile - 2) / kTile + 1); }
  // Whether a pair of tiles of the band holds softmax keys, or linear keys.
  bool HasSoftmax(int64_t r, int64_t chunk) const {
    return window > 0 ? (chunk + 1) * kTile > r * kTile - window + 1 || chunk < SinkChunks()
                      : chunk < SinkChunks();
  }
  bool HasLinear(int64_t r, int64_t chunk) const {
    return linear && (span_all || chunk * kTile <= r * kTile + kTile - 1 - window);
  }

  int64_t window, sinks;
  bool softmax, linear, span_all;
};

template <class T>
class HybridKeys {
 public:
  HybridKeys(const HybridProblem<T>& p, const HybridPlan<T>& plan, int64_t bh, Carver<T>& carver)
      : p_(p), plan_(plan), at_(p.sizes, bh) {
    const int64_t n = plan.chunks;
    if (plan.softmax || p.w_k != nullptr) keys_ = carver.Take(n * plan.d * kTile);
    values_ = carver.Take(n * kTile * plan.padded);
    linear_values_ = p.v_linear.data != nullptr ? carver.Take(n * kTile * plan.padded) : values_;
    if (!plan.linear) return;
    phi_ = carver.Take(n * plan.features * kTile);
    state_ = carver.Take(plan.features * plan.padded);
    mass_ = carver.Take(plan.features);
  }

  void Start() {
    folded_ = 0;
    if (!plan_.linear) return;
    Zero(state_, plan_.features * plan_.padded);
    Zero(mass_, plan_.features);
  }

  // Reads a chunk's keys, values and features into tiles.
  void Load(int64_t chunk) {
    const int64_t first = chunk * kTile;
    if (keys_ != nullptr)
      LoadFeatureMajor(Sequence(p_.k, at_.kv_head), p_.k.token, first, plan_.tokens, plan_.d,
                       Key(chunk));
    LoadRowMajor(Sequence(p_.v, at_.kv_head), p_.v.token, first, plan_.tokens, plan_.d,
                 plan_.padded, Value(chunk));
    if (p_.v_linear.data != nullptr)
      LoadRowMajor(Sequence(p_.v_linear, at_.kv_head), p_.v_linear.token, first, plan_.tokens,
                   plan_.d, plan_.padded, LinearValue(chunk));
    if (!plan_.linear) return;
    if (p_.w_k != nullptr) {
      MapTile(Key(chunk), MapWeight(p_.w_k), plan_.d, plan_.f, Phi(chunk));
    } else {
      LoadFeatureMajor(Sequence(p_.phi_k, at_.head), p_.phi_k.token, first, plan_.tokens,
                       plan_.features, Phi(chunk));
    }
    // Sinks belong to the softmax set alone: without features they weigh nothing in state and
    // tiles.
    if (!plan_.span_all && plan_.sinks > first)
      for (int64_t r = 0; r < plan_.features; ++r)
        KeepLanes(Phi(chunk) + r * kTile, plan_.sinks - first, kTile, T{0});
  }

  // Brings the state to the chunks below `end`; only forward.
  void FoldUntil(int64_t end) {
    for (; folded_ < end; ++folded_) {
      const T* phi = Phi(folded_);
      Product<Into::kAdd>(state_, plan_.padded, {phi, kTile, 1}, LinearValue(folded_), plan_.padded,
                          plan_.features, plan_.padded, kTile);
      alignas(64) T ones[kTile];
      for (T& one : ones) one = 1;
      AddLaneSums(phi, ones, plan_.features, mass_);
    }
  }

  template <class U>
  U* Sequence(const Rows<U>& rows, int64_t head) const {
    return at_.Sequence(rows, head);
  }
  const T* MapWeight(const T* w) const { return w + at_.head * plan_.MapArea(); }

  T* Key(int64_t chunk) const { return keys_ + chunk * plan_.d * kTile; }
  T* Value(int64_t chunk) const { return values_ + chunk * kTile * plan_.padded; }
  T* LinearValue(int64_t chunk) const { return linear_values_ + chunk * kTile * plan_.padded; }
  T* Phi(int64_t chunk) const { return phi_ + chunk * plan_.features * kTile; }
  const T* state() const { return state_; }
  const T* mass() const { return mass_; }
  int64_t folded() const { return folded_; }
  int64_t batch() const { return at_.batch; }
  int64_t head() const { return at_.head; }
  int64_t kv_head() const { return at_.kv_head; }

 private:
  const HybridProblem<T>& p_;
  const HybridPlan<T>& plan_;
  const TaskPlace at_;
  int64_t folded_ = 0;
  T* keys_ = nullptr;
  T* values_ = nullptr;
  T* linear_values_ = nullptr;
  T* phi_ = nullptr;
  T* state_ = nullptr;
  T* mass_ = nullptr;
};

}  // namespace tandem::TANDEM_KERNEL_ISA
