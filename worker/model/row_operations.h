// Row operations: the elementwise and row-wise arithmetic between the model's matrix products.
//
// Torch-free loops over rows [begin, end) of contiguous fp32 matrices, so that callers split rows
// over threads (at::parallel_for); a row is always one thread's, hence bitwise reproducible for any
// number of threads. Compiled for several instruction sets, chosen at load time. Pure, any thread,
// never fail. N rows, D hidden, I intermediate, V vocabulary, d head dimension.
#pragma once

#include <cstdint>

namespace tandem {

// y = x * r * w, r = 1/sqrt(mean(x^2) + eps); r is written to inverse_rms (N) unless null.
void RmsNormRows(const float* x, const float* w, float* y, float* inverse_rms, int64_t begin,
                 int64_t end, int64_t D, float eps);
// y = x * r * w with r from a forward pass.
void ScaleNormRows(const float* x, const float* w, const float* inverse_rms, float* y,
                   int64_t begin, int64_t end, int64_t D);
// dx += d(RmsNorm)/dx applied to dy.
void RmsNormBackwardRows(const float* dy, const float* x, const float* w, const float* inverse_rms,
                         float* dx, int64_t begin, int64_t end, int64_t D);

// RoPE in place on `heads` heads of d at the start of each row; pairs (i, i + d/2). Row n is
// position n mod T of cos, sin (T,d/2). sign -1 turns back (the backward).
struct RotaryRows {
  int64_t row_stride = 0, heads = 0, d = 0, T = 0;
  const float* cos = nullptr;
  const float* sin = nullptr;
  float sign = 1;
};
void RotateRows(float* x, const RotaryRows& rows, int64_t begin, int64_t end);

// gate_up (N,2I) holds gate then up; out = silu(gate) * up, (N,I).
void SwiGluRows(const float* gate_up, float* out, int64_t begin, int64_t end, int64_t I);
// gate_up becomes its own gradient, given d_out (N,I).
void SwiGluBackwardRows(float* gate_up, const float* d_out, int64_t begin, int64_t end, int64_t I);

// losses[n] = ln sum exp(logits[n]) - logits[n][labels[n]]; with scale != 0 each row becomes scale
// times its gradient.
void CrossEntropyRows(float* logits, const int64_t* labels, float* losses, float scale,
                      int64_t begin, int64_t end, int64_t V);
// First index of each row's maximum.
void ArgmaxRows(const float* logits, int64_t* indices, int64_t begin, int64_t end, int64_t V);

// AdamW without weight decay (Kingma & Ba 2015), in torch.optim.AdamW's order of operations.
// step_size = lr / (1 - beta1^t), inverse_bias = 1 / sqrt(1 - beta2^t).
struct AdamCoefficients {
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, step_size = 0, inverse_bias = 1;
};
void AdamUpdate(float* p, float* m, float* v, const float* g, int64_t count,
                const AdamCoefficients& coefficients);

}  // namespace tandem
