#include "worker/model/tensor_rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "worker/model/row_operations.h"
#include "worker/model/tensor_rows_aten.h"

// Without OpenMP, ATen's parallel_for runs on one thread and says nothing (cmake/Torch.cmake).
#ifndef INTRA_OP_PARALLEL
#error "compile with TANDEM_PARALLEL_OPTIONS"
#endif

namespace tandem {
namespace {

// Elements per task: below, splitting costs more than it gives.
constexpr int64_t kGrainElements = 16384;

// The loops are for fp32 on the CPU; everything else goes through ATen.
bool HasLoop(const at::Tensor& t) {
  return t.device().is_cpu() && t.scalar_type() == at::kFloat;
}

int64_t Grain(int64_t row_elements) {
  return std::max<int64_t>(1, kGrainElements / row_elements);
}

const float* Read(const at::Tensor& t) {
  TORCH_CHECK(t.is_contiguous(), "row operations need contiguous tensors");
  return t.const_data_ptr<float>();
}

float* Write(const at::Tensor& t) {
  TORCH_CHECK(t.is_contiguous(), "row operations need contiguous tensors");
  return t.mutable_data_ptr<float>();
}

template <typename Body>
void ForRows(int64_t rows, int64_t row_elements, const Body& body) {
  at::parallel_for(0, rows, Grain(row_elements), body);
}

}  // namespace

NormedRows RmsNorm(const at::Tensor& x, const at::Tensor& w_D, double eps) {
  if (!HasLoop(x)) return aten_rows::RmsNorm(x, w_D, eps);
  const int64_t D = w_D.size(0), N = x.numel() / D;
  NormedRows result{at::empty_like(x), at::empty({N}, x.options())};
  const float *in = Read(x), *w = Read(w_D);
  float *y = Write(result.y), *r = Write(result.inverse_rms);
  ForRows(N, D, [&](int64_t begin, int64_t end) {
    RmsNormRows(in, w, y, r, begin, end, D, static_cast<float>(eps));
  });
  return result;
}

at::Tensor RmsNormAgain(const at::Tensor& x, const at::Tensor& w_D, const at::Tensor& inverse_rms) {
  if (!HasLoop(x)) return aten_rows::RmsNormAgain(x, w_D, inverse_rms);
  const int64_t D = w_D.size(0);
  at::Tensor result = at::empty_like(x);
  const float *in = Read(x), *w = Read(w_D), *r = Read(inverse_rms);
  float* y = Write(result);
  ForRows(x.numel() / D, D,
          [&](int64_t begin, int64_t end) { ScaleNormRows(in, w, r, y, begin, end, D); });
  return result;
}

void AddRmsNormBackward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w_D,
                        const at::Tensor& inverse_rms, const at::Tensor& dx) {
  if (!HasLoop(x)) return aten_rows::AddRmsNormBackward(dy, x, w_D, inverse_rms, dx);
  const int64_t D = w_D.size(0);
  const float *g = Read(dy), *in = Read(x), *w = Read(w_D), *r = Read(inverse_rms);
  float* out = Write(dx);
  ForRows(x.numel() / D, D, [&](int64_t begin, int64_t end) {
    RmsNormBackwardRows(g, in, w, r, out, begin, end, D);
  });
}

void Rotate(const at::Tensor& rows_NC, int64_t heads, const RotaryTable& table, bool backward) {
  if (!HasLoop(rows_NC)) return aten_rows::Rotate(rows_NC, heads, table, backward);
  const int64_t C = rows_NC.size(-1), N = rows_NC.numel() / C;
  RotaryRows rows;
  rows.row_stride = C;
  rows.heads = heads;
  rows.d = table.cos.size(1) * 2;
  rows.T = table.cos.size(0);
  rows.cos = Read(table.cos);
  rows.sin = Read(table.sin);
  rows.sign = backward ? -1.0f : 1.0f;
  float* x = Write(rows_NC);
  ForRows(N, heads * rows.d, [&](int64_t begin, int64_t end) { RotateRows(x, rows, begin, end); });
}

at::Tensor SwiGlu(const at::Tensor& gate_up_N2I) {
  if (!HasLoop(gate_up_N2I)) return aten_rows::SwiGlu(gate_up_N2I);
  const int64_t N = gate_up_N2I.size(0), I = gate_up_N2I.size(1) / 2;
  at::Tensor out = at::empty({N, I}, gate_up_N2I.options());
  const float* in = Read(gate_up_N2I);
  float* y = Write(out);
  ForRows(N, 2 * I, [&](int64_t begin, int64_t end) { SwiGluRows(in, y, begin, end, I); });
  return out;
}

void SwiGluBackward(const at::Tensor& gate_up_N2I, const at::Tensor& d_out_NI) {
  if (!HasLoop(gate_up_N2I)) return aten_rows::SwiGluBackward(gate_up_N2I, d_out_NI);
  const int64_t N = gate_up_N2I.size(0), I = gate_up_N2I.size(1) / 2;
  float* in = Write(gate_up_N2I);
  const float* g = Read(d_out_NI);
  ForRows(N, 2 * I, [&](int64_t begin, int64_t end) { SwiGluBackwardRows(in, g, begin, end, I); });
}

at::Tensor CrossEntropy(const at::Tensor& logits_NV, const at::Tensor& labels_N, double scale) {
  const int64_t N = logits_NV.size(0), V = logits_NV.size(1);
  TORCH_CHECK(labels_N.numel() == N, N, " rows of logits, but ", labels_N.numel(), " labels");
  if (!HasLoop(logits_NV)) return aten_rows::CrossEntropy(logits_NV, labels_N, scale);
  at::Tensor losses = at::empty({N}, logits_NV.options());
  float *logits = Write(logits_NV), *out = Write(losses);
  const int64_t* labels = labels_N.const_data_ptr<int64_t>();
  ForRows(N, V, [&](int64_t begin, int64_t end) {
    CrossEntropyRows(logits, labels, out, static_cast<float>(scale), begin, end, V);
  });
  return losses;
}

at::Tensor Argmax(const at::Tensor& logits_NV) {
  if (!HasLoop(logits_NV)) return aten_rows::Argmax(logits_NV);
  const int64_t N = logits_NV.size(0), V = logits_NV.size(1);
  at::Tensor indices = at::empty({N}, logits_NV.options().dtype(at::kLong));
  const float* logits = Read(logits_NV);
  int64_t* out = indices.mutable_data_ptr<int64_t>();
  ForRows(N, V, [&](int64_t begin, int64_t end) { ArgmaxRows(logits, out, begin, end, V); });
  return indices;
}

}  // namespace tandem
