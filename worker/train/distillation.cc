#include "worker/train/distillation.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "worker/model/attention/attention.h"
#include "worker/model/base_product.h"
#include "worker/model/logit_rows.h"
#include "worker/model/next_token_loss.h"
#include "worker/model/projection.h"
#include "worker/model/tensor_rows.h"

namespace tandem {

at::Tensor TeacherHiddenState(const Llama& model, const at::Tensor& ids_BT,
                              const std::vector<DocumentSpan>& spans) {
  at::Tensor x = model.Embed(ids_BT);
  for (int64_t i = 0; i < model.config().num_layers; ++i) {
    const QkvTensors in = model.Qkv(x, i, nullptr);
    std::vector<at::Tensor> parts;
    for (const DocumentSpan& span : spans) {
      const QkvTensors part = Within(in, span);
      parts.push_back(CausalSoftmax(part.q, part.k, part.v).out_BHTd);
    }
    x = model.FinishLayer(
        x, spans.empty() ? CausalSoftmax(in.q, in.k, in.v).out_BHTd : JoinSpans(parts, spans), i,
        nullptr);
  }
  return x;
}

DistillGradient DistillBackward(const Llama& model, const at::Tensor& x_BTD,
                                const at::Tensor& teacher_BTD, const at::Tensor& label_mask_BT,
                                double gradient_scale) {
  const NormedRows normed = RmsNorm(x_BTD, model.final_norm(), model.config().rms_norm_eps);
  const at::Tensor labels = label_mask_BT.defined() ? label_mask_BT.to(x_BTD.device())
                                                    : at::ones(x_BTD.sizes().slice(0, 2),
                                                               x_BTD.options().dtype(at::kByte));
  const at::Tensor predicting = PredictingRows(labels);
  const at::Tensor rows = AsRows(normed.y).index_select(0, predicting);
  const at::Tensor teacher = AsRows(model.FinalNorm(teacher_BTD)).index_select(0, predicting);
  at::Tensor d_rows = at::empty_like(rows);
  DistillGradient result;
  for (int64_t begin = 0; begin < rows.size(0); begin += kLossChunkRows) {
    const int64_t count = std::min(kLossChunkRows, rows.size(0) - begin);
    const auto log_p = [&](const at::Tensor& of) {
      return at::log_softmax(TimesTransposed(of.narrow(0, begin, count), model.lm_head()), 1);
    };
    const at::Tensor log_student = log_p(rows), log_teacher = log_p(teacher);
    const at::Tensor p_teacher = log_teacher.exp();
    result.loss_sum += p_teacher.mul(log_teacher.sub(log_student)).sum(at::kDouble).item<double>();
    const at::Tensor d_logits = log_student.exp().sub_(p_teacher).mul_(gradient_scale);
    TimesInto(d_rows.narrow(0, begin, count), d_logits, model.lm_head());
  }
  const at::Tensor d_all = at::zeros_like(AsRows(normed.y)).index_copy_(0, predicting, d_rows);
  result.d_x_BTD = at::zeros_like(x_BTD);
  AddRmsNormBackward(d_all, x_BTD, model.final_norm(), normed.inverse_rms, result.d_x_BTD);
  return result;
}

}  // namespace tandem
