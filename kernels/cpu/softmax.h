// The teacher: causal softmax attention with log-sum-exp, key tiles swept once per row tile (online
// softmax). Weights lie as [key][query lane]; O(T d) scratch. Confined to one task; cannot fail.
#pragma once

#include "kernels/cpu/task.h"

namespace tandem::TANDEM_KERNEL_ISA {

// Keys per step: the maximum is updated, and the output rescaled, once per step.
constexpr int kSoftmaxKeys = 2 * kTile;

template <class T>
class SoftmaxTask {
 public:
  SoftmaxTask(const SoftmaxProblem<T>& p, int64_t bh, Carver<T>& carver)
      : p_(p), s_(p.sizes), at_(p.sizes, bh) {
    keys_ = carver.Take(s_.chunks * s_.d * kTile);
    values_ = carver.Take(s_.chunks * kTile * s_.padded);
    query_ = carver.Take(s_.d * kTile);
    weights_ = carver.Take(kSoftmaxKeys * kTile);
    out_ = carver.Take(s_.d * kTile);
    top_ = carver.Take(kTile);
    sum_ = carver.Take(kTile);
    scale_ = carver.Take(kTile);
  }

  void Run() {
    for (int64_t r = 0; r < s_.chunks; ++r) {
      LoadFeatureMajor(at_.Sequence(p_.k, at_.kv_head), p_.k.token, r * kTile, s_.tokens, s_.d,
                       keys_ + r * s_.d * kTile);
      LoadRowMajor(at_.Sequence(p_.v, at_.kv_head), p_.v.token, r * kTile, s_.tokens, s_.d,
                   s_.padded, values_ + r * kTile * s_.padded);
      RunRows(r);
    }
  }

 private:
  void RunRows(int64_t r) {
    LoadFeatureMajor(at_.Sequence(p_.q, at_.head), p_.q.token, r * kTile, s_.tokens, s_.d, query_);
    ScaleQueries(s_, query_, query_);
    for (int i = 0; i < kTile; ++i) {
      top_[i] = static_cast<T>(kMasked);
      sum_[i] = 0;
    }
    Zero(out_, s_.d * kTile);
    for (int64_t chunk = 0; chunk <= r; chunk += kSoftmaxKeys / kTile)
      AddKeys(chunk, Smaller(kSoftmaxKeys / kTile, r + 1 - chunk), r);
    Finish(r);
  }

  void AddKeys(int64_t chunk, int64_t count, int64_t r) {
    const int64_t num_keys = count * kTile;
    for (int64_t c = 0; c < count; ++c)
      Product<Into::kSet>(weights_ + c * kTile * kTile, kTile,
                          {keys_ + (chunk + c) * s_.d * kTile, 1, kTile}, query_, kTile, kTile,
                          kTile, s_.d);
    if (chunk + count > r)
      for (int64_t j = 0; j < kTile; ++j)
        KeepLanes(weights_ + ((count - 1) * kTile + j) * kTile, j, kTile, static_cast<T>(kMasked));
    if (Exponentiate(num_keys)) Rescale();
    Product<Into::kAdd>(out_, kTile, {values_ + chunk * kTile * s_.padded, 1, s_.padded}, weights_,
                        kTile, s_.d, kTile, num_keys);
  }

  // Scores become exp(s - top); returns whether any row's maximum moved, with the factors in
  // scale_.
  bool Exponentiate(int64_t num_keys) {
    constexpr int L = kLanes<T>;
    const Vec<T> negligible = Splat(static_cast<T>(kNegligible));
    bool moved = false;
    for (int i = 0; i < kTile; i += L) {
      const Vec<T> old = Load(top_ + i);
      Vec<T> top = old;
      for (int64_t j = 0; j < num_keys; ++j) top = Max(top, Load(weights_ + j * kTile + i));
      const Vec<T> scale = Exp(old - top);
      Vec<T> sum = Load(sum_ + i) * scale;
      for (int64_t j = 0; j < num_keys; ++j) {
        const Vec<T> below = Load(weights_ + j * kTile + i) - top;
        const Vec<T> e = below <= negligible ? Vec<T>{} : Exp(below);
        sum += e;
        Store<T>(weights_ + j * kTile + i, e);
      }
      Store<T>(top_ + i, top);
      Store<T>(sum_ + i, sum);
      Store<T>(scale_ + i, scale);
      for (int l = 0; l < L; ++l) moved = moved || scale_[i + l] != T{1};
    }
    return moved;
  }

  void Rescale() {
    for (int64_t c = 0; c < s_.d; ++c)
      for (int i = 0; i < kTile; i += kLanes<T>)
        Store<T>(out_ + c * kTile + i, Load(out_ + c * kTile + i) * Load(scale_ + i));
  }

  void Finish(int64_t r) {
    for (int i = 0; i < kTile; i += kLanes<T>) {
      const Vec<T> sum = Load(sum_ + i);
      Store<T>(scale_ + i, Splat(T{1}) / sum);
      Store<T>(top_ + i, Load(top_ + i) + Log(sum));
    }
    Rescale();
    StoreFeatureMajor(out_, r * kTile, s_.tokens, s_.d, at_.Sequence(p_.out, at_.head),
                      p_.out.token);
    for (int64_t i = 0; i < s_.RowsOf(r); ++i) p_.lse[at_.bh * s_.tokens + r * kTile + i] = top_[i];
  }

  const SoftmaxProblem<T>& p_;
  const TileSizes s_;
  const TaskPlace at_;
  T *keys_ = nullptr, *values_ = nullptr, *query_ = nullptr, *weights_ = nullptr, *out_ = nullptr;
  T *top_ = nullptr, *sum_ = nullptr, *scale_ = nullptr;
};

}  // namespace tandem::TANDEM_KERNEL_ISA
