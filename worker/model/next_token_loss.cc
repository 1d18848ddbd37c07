#include "worker/model/next_token_loss.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "worker/model/base_product.h"
#include "worker/model/logit_rows.h"
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

// Calls body(begin, count, logits) for each chunk; the logits' memory is used again.
template <typename Body>
void ForLogitChunks(const Llama& model, const at::Tensor& normed_ND, const Body& body) {
  const int64_t N = normed_ND.size(0), V = model.lm_head().size(0);
  const int64_t rows = std::min(N, LogitRows(normed_ND.device().is_cpu(), V));
  at::Tensor buffer = at::empty({rows, V}, normed_ND.options());
  for (int64_t begin = 0; begin < N; begin += rows) {
    const int64_t count = std::min(rows, N - begin);
    const at::Tensor logits = buffer.narrow(0, 0, count);
    TimesTransposedInto(logits, normed_ND.narrow(0, begin, count), model.lm_head());
    body(begin, count, logits);
  }
}

// The sum in double, row after row: the same bits for any chunks.
double SumOfLosses(const at::Tensor& losses_N) {
  const at::Tensor host = losses_N.cpu();
  const float* loss = host.const_data_ptr<float>();
  double sum = 0;
  for (int64_t i = 0; i < host.numel(); ++i) sum += static_cast<double>(loss[i]);
  return sum;
}

// Those of the others whose rows are in the chunk; its logits are left as they are.
void ScoreOthers(const at::Tensor& logits, int64_t begin, int64_t T,
                 const std::vector<OtherTarget>& others, const at::Tensor& losses) {
  std::vector<int64_t> rows, tokens, places;
  for (size_t i = 0; i < others.size(); ++i) {
    const int64_t row = others[i].sequence * T + others[i].position - begin;
    if (row < 0 || row >= logits.size(0)) continue;
    rows.push_back(row);
    tokens.push_back(others[i].token);
    places.push_back(static_cast<int64_t>(i));
  }
  if (rows.empty()) return;
  const auto on_device = [&logits](const std::vector<int64_t>& values) {
    at::Tensor host = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
    std::copy(values.begin(), values.end(), host.mutable_data_ptr<int64_t>());
    return host.to(logits.device());
  };
  const at::Tensor of_rows = logits.index_select(0, on_device(rows));
  losses.index_copy_(0, on_device(places), CrossEntropy(of_rows, on_device(tokens), 0.0));
}

void CheckIds(const at::Tensor& x_BTD, const at::Tensor& ids_BT) {
  TORCH_CHECK(ids_BT.dim() == 2 && ids_BT.size(1) >= 2 && x_BTD.size(0) == ids_BT.size(0) &&
                  x_BTD.size(1) == ids_BT.size(1),
              "ids must be (B,T) with T >= 2 like the hidden state ", x_BTD.sizes(), ", not ",
              ids_BT.sizes());
}

}  // namespace

at::Tensor PredictingRows(const at::Tensor& label_mask_BT) {
  const int64_t T = label_mask_BT.size(1);
  const at::Tensor next = at::constant_pad_nd(label_mask_BT.narrow(1, 1, T - 1), {0, 1});
  return next.reshape({-1}).nonzero().view({-1});
}

NextTokenLosses ComputeNextTokenLosses(const Llama& model, const at::Tensor& x_BTD,
                                       const at::Tensor& ids_BT, bool predictions,
                                       const std::vector<OtherTarget>& others) {
  CheckIds(x_BTD, ids_BT);
  const int64_t B = ids_BT.size(0), T = ids_BT.size(1);
  const at::Tensor labels = LabelsOf(ids_BT.to(x_BTD.device()));
  const at::Tensor normed = AsRows(model.FinalNorm(x_BTD));
  at::Tensor losses = at::empty({B * T}, normed.options());
  NextTokenLosses result;
  result.other_losses = at::empty({static_cast<int64_t>(others.size())}, normed.options());
  if (predictions) result.predicted_BT = at::empty({B * T}, labels.options());
  ForLogitChunks(model, normed, [&](int64_t begin, int64_t count, const at::Tensor& logits) {
    if (predictions) result.predicted_BT.narrow(0, begin, count).copy_(Argmax(logits));
    ScoreOthers(logits, begin, T, others, result.other_losses);
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
  at::Tensor labels = LabelsOf(ids_BT.to(x_BTD.device()));
  const NormedRows normed = RmsNorm(x_BTD, model.final_norm(), model.config().rms_norm_eps);
  const bool masked = label_mask_BT.defined();
  at::Tensor rows = AsRows(normed.y), predicting;
  if (masked) {
    predicting = PredictingRows(label_mask_BT.to(x_BTD.device()));
    rows = rows.index_select(0, predicting);
    labels = labels.index_select(0, predicting);
  }
  at::Tensor d_rows = at::empty_like(rows);
  const at::Tensor losses = at::empty({rows.size(0)}, rows.options());
  ForLogitChunks(model, rows, [&](int64_t begin, int64_t count, const at::Tensor& logits) {
    const at::Tensor of_chunk = losses.narrow(0, begin, count);
    of_chunk.copy_(CrossEntropy(logits, labels.narrow(0, begin, count), gradient_scale));
    // Without a mask the last row of each sequence is the one that has no label.
    for (int64_t i = T - 1 - begin % T; !masked && i < count; i += T) {
      of_chunk.select(0, i).zero_();
      logits.select(0, i).zero_();
    }
    TimesInto(d_rows.narrow(0, begin, count), logits, model.lm_head());
  });
  if (masked) {
    d_rows = at::zeros_like(AsRows(normed.y)).index_copy_(0, predicting, d_rows);
  }
  NextTokenGradient result;
  result.loss_sum = SumOfLosses(losses);
  result.d_x_BTD = at::zeros_like(x_BTD);
  AddRmsNormBackward(d_rows, x_BTD, model.final_norm(), normed.inverse_rms, result.d_x_BTD);
  return result;
}

}  // namespace tandem
