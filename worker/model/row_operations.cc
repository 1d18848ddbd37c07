#include "worker/model/row_operations.h"

#include <cmath>
#include <cstring>

// The loader picks the best clone. Sums run in kLanes fixed lanes, so that they vectorise without
// licence to reassociate.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TANDEM_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define TANDEM_CLONES
#endif
#define TANDEM_INLINE inline __attribute__((always_inline))

namespace tandem {
namespace {

constexpr int64_t kLanes = 16;

// exp for finite x, about 2 ulp: Cephes' polynomial after taking out powers of two. Clamped to
// [-87.3, 88].
TANDEM_INLINE float FastExp(float x) {
  x = x < 88.0f ? x : 88.0f;
  x = x > -87.3f ? x : -87.3f;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504f + magic;
  const float n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = (y * r) * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return y * power;
}

// Adds lanes up in a fixed order.
TANDEM_INLINE float AddLanes(const float* lanes) {
  float sum = 0;
  for (int64_t i = 0; i < kLanes; ++i) sum += lanes[i];
  return sum;
}

TANDEM_INLINE float Dot(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  float sum = AddLanes(lanes);
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

TANDEM_INLINE float Dot3(const float* a, const float* b, const float* c, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += a[i + l] * b[i + l] * c[i + l];
  }
  float sum = AddLanes(lanes);
  for (; i < n; ++i) sum += a[i] * b[i] * c[i];
  return sum;
}

TANDEM_INLINE float MaxOf(const float* x, int64_t n) {
  float lanes[kLanes];
  for (int64_t l = 0; l < kLanes; ++l) lanes[l] = x[0];
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  }
  float best = lanes[0];
  for (int64_t l = 1; l < kLanes; ++l) best = lanes[l] > best ? lanes[l] : best;
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

// sum exp(x - top); x becomes exp(x - top) when `keep`.
TANDEM_INLINE float ExpSum(float* x, float top, int64_t n, bool keep) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    float e[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) {
      e[l] = FastExp(x[i + l] - top);
      lanes[l] += e[l];
    }
    if (keep) std::memcpy(x + i, e, sizeof(e));
  }
  float sum = AddLanes(lanes);
  for (; i < n; ++i) {
    const float e = FastExp(x[i] - top);
    sum += e;
    if (keep) x[i] = e;
  }
  return sum;
}

}  // namespace

TANDEM_CLONES void RmsNormRows(const float* x, const float* w, float* y, float* inverse_rms,
                               int64_t begin, int64_t end, int64_t D, float eps) {
  for (int64_t n = begin; n < end; ++n) {
    const float* row = x + n * D;
    float* out = y + n * D;
    const float r = 1.0f / std::sqrt(Dot(row, row, D) / static_cast<float>(D) + eps);
    for (int64_t i = 0; i < D; ++i) out[i] = row[i] * r * w[i];
    if (inverse_rms != nullptr) inverse_rms[n] = r;
  }
}

TANDEM_CLONES void ScaleNormRows(const float* x, const float* w, const float* inverse_rms, float* y,
                                 int64_t begin, int64_t end, int64_t D) {
  for (int64_t n = begin; n < end; ++n) {
    const float r = inverse_rms[n];
    for (int64_t i = 0; i < D; ++i) y[n * D + i] = x[n * D + i] * r * w[i];
  }
}

TANDEM_CLONES void RmsNormBackwardRows(const float* dy, const float* x, const float* w,
                                       const float* inverse_rms, float* dx, int64_t begin,
                                       int64_t end, int64_t D) {
  for (int64_t n = begin; n < end; ++n) {
    const float* g = dy + n * D;
    const float* row = x + n * D;
    const float r = inverse_rms[n];
    const float back = r * r * r * Dot3(g, w, row, D) / static_cast<float>(D);
    float* out = dx + n * D;
    for (int64_t i = 0; i < D; ++i) out[i] += g[i] * w[i] * r - row[i] * back;
  }
}

TANDEM_CLONES void RotateRows(float* x, const RotaryRows& rows, int64_t begin, int64_t end) {
  const int64_t half = rows.d / 2;
  const float sign = rows.sign;
  for (int64_t n = begin; n < end; ++n) {
    const float* c = rows.cos + (n % rows.T) * half;
    const float* s = rows.sin + (n % rows.T) * half;
    for (int64_t h = 0; h < rows.heads; ++h) {
      float* a = x + n * rows.row_stride + h * rows.d;
      float* b = a + half;
#pragma GCC ivdep
      for (int64_t i = 0; i < half; ++i) {
        const float low = a[i], high = b[i], turn = sign * s[i];
        a[i] = low * c[i] - high * turn;
        b[i] = high * c[i] + low * turn;
      }
    }
  }
}

TANDEM_CLONES void SwiGluRows(const float* gate_up, float* out, int64_t begin, int64_t end,
                              int64_t I) {
  for (int64_t n = begin; n < end; ++n) {
    const float* gate = gate_up + n * 2 * I;
    const float* up = gate + I;
    float* y = out + n * I;
#pragma GCC ivdep
    for (int64_t i = 0; i < I; ++i) y[i] = gate[i] / (1.0f + FastExp(-gate[i])) * up[i];
  }
}

TANDEM_CLONES void SwiGluBackwardRows(float* gate_up, const float* d_out, int64_t begin,
                                      int64_t end, int64_t I) {
  for (int64_t n = begin; n < end; ++n) {
    float* gate = gate_up + n * 2 * I;
    float* up = gate + I;
    const float* g = d_out + n * I;
#pragma GCC ivdep
    for (int64_t i = 0; i < I; ++i) {
      const float x = gate[i], sigmoid = 1.0f / (1.0f + FastExp(-x)), silu = x * sigmoid;
      gate[i] = g[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
      up[i] = g[i] * silu;
    }
  }
}

TANDEM_CLONES void CrossEntropyRows(float* logits, const int64_t* labels, float* losses,
                                    float scale, int64_t begin, int64_t end, int64_t V) {
  for (int64_t n = begin; n < end; ++n) {
    float* row = logits + n * V;
    const float top = MaxOf(row, V), label_logit = row[labels[n]];
    const bool keep = scale != 0.0f;
    const float sum = ExpSum(row, top, V, keep);
    losses[n] = top - label_logit + std::log(sum);
    if (!keep) continue;
    const float factor = scale / sum;
    for (int64_t i = 0; i < V; ++i) row[i] *= factor;
    row[labels[n]] -= scale;
  }
}

TANDEM_CLONES void ArgmaxRows(const float* logits, int64_t* indices, int64_t begin, int64_t end,
                              int64_t V) {
  for (int64_t n = begin; n < end; ++n) {
    const float* row = logits + n * V;
    const float top = MaxOf(row, V);
    int64_t i = 0;
    while (i + 1 < V && row[i] != top) ++i;
    indices[n] = i;
  }
}

TANDEM_CLONES void AdamUpdate(float* p, float* m, float* v, const float* g, int64_t count,
                              const AdamCoefficients& coefficients) {
  const AdamCoefficients c = coefficients;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    m[i] = m[i] + (g[i] - m[i]) * (1.0f - c.beta1);
    v[i] = v[i] * c.beta2 + g[i] * g[i] * (1.0f - c.beta2);
    p[i] -= c.step_size * m[i] / (std::sqrt(v[i]) * c.inverse_bias + c.eps);
  }
}

}  // namespace tandem
