// The teacher: causal softmax attention with log-sum-exp, key tiles swept once per row tile (online
// softmax). Weights lie as [key][query lane]; O(T d) scratch. Confined to one task; cannot fail.
#pragma once

#include "kernels/cpu/attention.h"
#include "kernels/cpu/tile.h"

namespace tandem::TANDEM_KERNEL_ISA {

// Keys per step: the maximum is updated, and the output rescaled, once per step.
constexpr int kSoftmaxKeys = 2 * kTile;

template <class T>
class SoftmaxTask {
 public:
  SoftmaxTask(const SoftmaxProblem<T>& p, int64_t bh, Carver<T>& carver)
      : p_(p),
        tokens_(p.sizes.tokens),
        chunks_((p.sizes.tokens + kTile - 1) / kTile),
        d_(p.sizes.dim),
        padded_(PaddedWidth(p.sizes.dim)),
        bh_(bh),
        batch_(bh / p.sizes.heads),
        head_(bh % p.sizes.heads),
        kv_head_(head_ / (p.sizes.heads / p.sizes.kv_heads)) {
    keys_ = carver.Take(chunks_ * d_ * kTile);
    values_ = carver.Take(chunks_ * kTile * padded_);
    query_ = carver.Take(d_ * kTile);
    weights_ = carver.Take(kSoftmaxKeys * kTile);
    out_ = carver.Take(d_ * kTile);
    top_ = carver.Take(kTile);
    sum_ = carver.Take(kTile);
    scale_ = carver.Take(kTile);
  }

  void Run() {
    for (int64_t r = 0; r < chunks_; ++r) {
      LoadFeatureMajor(Sequence(p_.k, kv_head_), p_.k.token, r * kTile, tokens_, d_,
                       keys_ + r * d_ * kTile);
      LoadRowMajor(Sequence(p_.v, kv_head_), p_.v.token, r * kTile, tokens_, d_, padded_,
                   values_ + r * kTile * padded_);
      RunRows(r);
    }
  }

 private:
  template <class U>
  U* Sequence(const Rows<U>& rows, int64_t head) const {
    return rows.data + batch_ * rows.batch + head * rows.head;
  }

  void RunRows(int64_t r) {
    LoadFeatureMajor(Sequence(p_.q, head_), p_.q.token, r * kTile, tokens_, d_, query_);
    const T tau = T{1} / static_cast<T>(__builtin_sqrt(static_cast<double>(d_)));
    for (int64_t i = 0; i < d_ * kTile; i += kLanes<T>)
      Store<T>(query_ + i, Load(query_ + i) * tau);
    for (int i = 0; i < kTile; ++i) {
      top_[i] = static_cast<T>(kMasked);
      sum_[i] = 0;
    }
    Zero(out_, d_ * kTile);
    for (int64_t chunk = 0; chunk <= r; chunk += kSoftmaxKeys / kTile)
      AddKeys(chunk, Smaller(kSoftmaxKeys / kTile, r + 1 - chunk), r);
    Finish(r);
  }

  void AddKeys(int64_t chunk, int64_t count, int64_t r) {
    const int64_t num_keys = count * kTile;
    for (int64_t c = 0; c < count; ++c)
      Product<Into::kSet>(weights_ + c * kTile * kTile, kTile,
                          {keys_ + (chunk + c) * d_ * kTile, 1, kTile}, query_, kTile, kTile, kTile,
                          d_);
    if (chunk + count > r)
      for (int64_t j = 0; j < kTile; ++j)
        KeepLanes(weights_ + ((count - 1) * kTile + j) * kTile, j, kTile, static_cast<T>(kMasked));
    if (Exponentiate(num_keys)) Rescale();
    Product<Into::kAdd>(out_, kTile, {values_ + chunk * kTile * padded_, 1, padded_}, weights_,
                        kTile, d_, kTile, num_keys);
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
    for (int64_t c = 0; c < d_; ++c)
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
    const int64_t rows = Smaller(kTile, tokens_ - r * kTile);
    StoreFeatureMajor(out_, r * kTile, tokens_, d_, Sequence(p_.out, head_), p_.out.token);
    for (int64_t i = 0; i < rows; ++i) p_.lse[bh_ * tokens_ + r * kTile + i] = top_[i];
  }

  const SoftmaxProblem<T>& p_;
  const int64_t tokens_, chunks_, d_, padded_, bh_, batch_, head_, kv_head_;
  T *keys_ = nullptr, *values_ = nullptr, *query_ = nullptr, *weights_ = nullptr, *out_ = nullptr;
  T *top_ = nullptr, *sum_ = nullptr, *scale_ = nullptr;
};

}  // namespace tandem::TANDEM_KERNEL_ISA
