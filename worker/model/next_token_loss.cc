#include "worker/model/next_token_loss.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "worker/model/projection.h"
#include "worker/model/tensor_rows.h"

namespace tandem {
namespace {

// Token t+1 as the label of row t; the last row of a sequence has none and gets its own first
// token, whose loss is thrown away.
at::Tensor LabelsOf(const at::Tensor& ids_BT) {
  const int64_t T = ids_BT.size(1);
  return at::cat({ids_BT.narrow(1, 1, T - 1), ids_BT.narrow(1, 0, 1)}, 1).view({-1});
}

// Rows (b,t) of which token t+1 is a label, ascending: the only ones whose logits are made.
at::Tensor PredictingRows(const at::Tensor& label_mask_BT) {
  const int64_t T = label_mask_BT.size(1);
  const at::Tensor next = at::constant_pad_nd(label_mask_BT.narrow(1, 1, T - 1), {0, 1});
  return next.reshape({-1}).nonzero().view({-1});
}

// Calls body(begin, count, logits) for each chunk; the logits' memory is used again.
template <typename Body>
void ForLogitChunks(const Llama& model, const at::Tensor& normed_ND, const Body& body) {
  const int64_t N = normed_ND.size(0), V = model.lm_head().size(0);
  at::Tensor buffer = at::empty({std::min(N, kLossChunkRows), V}, normed_ND.options());
  const at::Tensor head = model.lm_head().t();
  for (int64_t begin = 0; begin < N; begin += kLossChunkRows) {
    const int64_t count = std::min(kLossChunkRows, N - begin);
    at::Tensor logits = buffer.narrow(0, 0, count);
    at::mm_out(logits, normed_ND.narrow(0, begin, count), head);
    body(begin, count, logits);
  }
}

void CheckIds(const at::Tensor& x_BTD, const at::Tensor& ids_BT) {
  TORCH_CHECK(ids_BT.dim() == 2 && ids_BT.size(1) >= 2 && x_BTD.size(0) == ids_BT.size(0) &&
                  x_BTD.size(1) == ids_BT.size(1),
              "ids must be (B,T) with T >= 2 like the hidden state ", x_BTD.sizes(), ", not ",
              ids_BT.sizes());
}

}  // namespace

NextTokenLosses ComputeNextTokenLosses(const Llama& model, const at::Tensor& x_BTD,
                                       const at::Tensor& ids_BT, bool predictions) {
  CheckIds(x_BTD, ids_BT);
  const int64_t B = ids_BT.size(0), T = ids_BT.size(1);
  const at::Tensor labels = LabelsOf(ids_BT), normed = AsRows(model.FinalNorm(x_BTD));
  at::Tensor losses = at::empty({B * T}, normed.options());
  NextTokenLosses result;
  if (predictions) result.predicted_BT = at::empty({B * T}, labels.options());
  ForLogitChunks(model, normed, [&](int64_t begin, int64_t count, const at::Tensor& logits) {
    if (predictions) result.predicted_BT.narrow(0, begin, count).copy_(Argmax(logits));
    losses.narrow(0, begin, count).copy_(CrossEntropy(logits, labels.narrow(0, begin, count), 0.0));
  });
  if (predictions) result.predicted_BT = result.predicted_BT.view({B, T});
  result.losses_BT1 = losses.view({B, T}).narrow(1, 0, T - 1).contiguous();
  return result;
}

NextTokenGradient NextTokenBackward(const Llama& model, const at::Tensor& x_BTD,
                                    const at::Tensor& ids_BT, double gradient_scale,
                                    const at::Tensor& label_mask_BT) {
  CheckIds(x_BTD, ids_BT);
  const int64_t T = ids_BT.size(1);
  at::Tensor labels = LabelsOf(ids_BT);
  const NormedRows normed = RmsNorm(x_BTD, model.final_norm(), model.config().rms_norm_eps);
  const bool masked = label_mask_BT.defined();
  const at::Tensor predicting = masked ? PredictingRows(label_mask_BT) : at::Tensor();
  at::Tensor rows = AsRows(normed.y);
  if (masked) {
    rows = rows.index_select(0, predicting);
    labels = labels.index_select(0, predicting);
  }
  at::Tensor d_rows = at::empty_like(rows);
  NextTokenGradient result;
  ForLogitChunks(model, rows, [&](int64_t begin, int64_t count, const at::Tensor& logits) {
    const at::Tensor losses = CrossEntropy(logits, labels.narrow(0, begin, count), gradient_scale);
    const float* loss = losses.const_data_ptr<float>();
    for (int64_t i = 0; i < count; ++i) {
      if (!masked && (begin + i + 1) % T == 0) {
        logits.select(0, i).zero_();
      } else {
        result.loss_sum += static_cast<double>(loss[i]);
      }
    }
    at::Tensor d_chunk = d_rows.narrow(0, begin, count);
    at::mm_out(d_chunk, logits, model.lm_head());
  });
  if (masked) {
    d_rows = at::zeros_like(AsRows(normed.y)).index_copy_(0, predicting, d_rows);
  }
  result.d_x_BTD = at::zeros_like(x_BTD);
  AddRmsNormBackward(d_rows, x_BTD, model.final_norm(), normed.inverse_rms, result.d_x_BTD);
  return result;
}

}  // namespace tandem
