// TransferLayer: the sum of an objective's terms, each by its fused step where that fits.
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "worker/model/attention/general.h"
#include "worker/model/attention/retention.h"
#include "worker/model/attention/weight_losses.h"

namespace tandem {
namespace {

constexpr double kOutputsScale = 1000;  // method.md §6.1

at::Tensor Leaf(const at::Tensor& x) {
  return x.defined() ? x.detach().set_requires_grad(true) : x;
}

// Gradients of the maps per query head back to those of a tied map.
at::Tensor SumTied(const at::Tensor& d_w, const at::Tensor& w) {
  if (d_w.size(0) == w.size(0)) return d_w;
  return d_w.unflatten(0, {w.size(0), -1}).sum(1);
}

TransferResult OutputsByAutograd(ComponentMode mode, const TransferCall& call) {
  const at::AutoGradMode gradients_on(true);
  const bool factor = mode == ComponentMode::kHybrid;
  AttentionCall student = call.attention;
  student.q = student.q.detach();
  student.k = student.k.detach();
  student.v = student.v.detach();
  student.w_q = Leaf(student.w_q);
  student.w_k = Leaf(student.w_k);
  student.b_q = Leaf(student.b_q);
  student.b_k = Leaf(student.b_k);
  const at::Tensor theta = Leaf(call.theta);
  std::vector<at::Tensor> inputs = {student.w_q, student.w_k};
  if (student.b_q.defined()) inputs.insert(inputs.end(), {student.b_q, student.b_k});
  if (factor) {
    student.gamma = ActivateWindowFactor(theta, call.factor);
    inputs.push_back(theta);
  }
  const at::Tensor y = Attend(mode, student);
  const at::Tensor loss = y.sub(call.teacher.out_BHTd).square().mean().mul(kOutputsScale);
  const std::vector<at::Tensor> g = torch::autograd::grad({loss.mul(call.grad_scale)}, inputs);
  TransferResult result;
  result.loss = loss.item<double>();
  result.d_w_q = g[0];
  result.d_w_k = g[1];
  if (student.b_q.defined()) {
    result.d_b_q = g[2];
    result.d_b_k = g[3];
  }
  if (factor) result.d_theta = g.back();
  return result;
}

TransferResult HybridOutputsTerm(const TransferCall& call) {
  const AttentionCall& a = call.attention;
  if (call.factor != "sigmoid" || a.form.window_gain != 1 ||
      !attention::FitsKernels(ComponentMode::kHybrid, a))
    return OutputsByAutograd(ComponentMode::kHybrid, call);
  TransferResult result = TransferHybridOutputs(
      a.q, a.k, a.v, call.teacher.out_BHTd, a.w_q, attention::PerHead(a.w_k, a.q.size(1)),
      call.theta, attention::OptionsOf(a.form), kOutputsScale, call.grad_scale);
  result.d_w_k = SumTied(result.d_w_k, a.w_k);
  return result;
}

TransferResult Weights(const TransferCall& call) {
  const AttentionCall& a = call.attention;
  if (!attention::FitsKernels(ComponentMode::kLinearOnly, a))
    return attention::GeneralWeights(call);
  TransferResult result = TransferWeights(a.q, a.k, a.v, call.teacher.lse_BHT, a.w_q,
                                          attention::PerHead(a.w_k, a.q.size(1)), call.grad_scale);
  result.d_w_k = SumTied(result.d_w_k, a.w_k);
  return result;
}

void AddTo(at::Tensor& sum, const at::Tensor& part, double weight) {
  if (!part.defined()) return;
  const at::Tensor scaled = weight == 1 ? part : part.mul(weight);
  sum = sum.defined() ? sum.add(scaled) : scaled;
}

void AddTerm(TransferResult& sum, const TransferResult& term, double weight) {
  sum.loss += weight * term.loss;
  AddTo(sum.d_w_q, term.d_w_q, weight);
  AddTo(sum.d_w_k, term.d_w_k, weight);
  AddTo(sum.d_b_q, term.d_b_q, weight);
  AddTo(sum.d_b_k, term.d_b_k, weight);
  AddTo(sum.d_theta, term.d_theta, weight);
}

at::Tensor ZerosLike(const at::Tensor& x) {
  return x.defined() ? at::zeros_like(x.detach()) : x;
}

// The layer whose every head stays softmax: nothing to learn.
TransferResult NothingToLearn(const TransferObjective& objective, const TransferCall& call) {
  TransferResult result;
  result.d_w_q = ZerosLike(call.attention.w_q);
  result.d_w_k = ZerosLike(call.attention.w_k);
  result.d_b_q = ZerosLike(call.attention.b_q);
  result.d_b_k = ZerosLike(call.attention.b_k);
  if (objective.TrainsFactor()) result.d_theta = ZerosLike(call.theta);
  return result;
}

TransferResult TransferConverted(const TransferObjective& objective, const TransferCall& call) {
  const attention::HeadSplit split(call.attention.q, call.attention.k, call.attention.retained);
  if (split.retains_all()) return NothingToLearn(objective, call);
  TransferCall part = call;
  part.attention = split.Converted(call.attention);
  part.theta = split.ConvertedFactors(call.theta);
  part.teacher = {split.ConvertedHeads(call.teacher.out_BHTd),
                  split.ConvertedHeads(call.teacher.lse_BHT)};
  TransferResult result = TransferLayer(objective, part);
  for (at::Tensor* gradient :
       {&result.d_w_q, &result.d_w_k, &result.d_b_q, &result.d_b_k, &result.d_theta})
    *gradient = split.Spread(*gradient);
  return result;
}

}  // namespace

TransferResult TransferLayer(const TransferObjective& objective, const TransferCall& call) {
  const at::NoGradGuard no_gradients;
  if (!call.attention.retained.empty()) return TransferConverted(objective, call);
  attention::CheckCall(ComponentMode::kLinearOnly, call.attention);
  TransferResult sum;
  if (objective.weights > 0) AddTerm(sum, Weights(call), objective.weights);
  if (objective.outputs > 0)
    AddTerm(sum, OutputsByAutograd(ComponentMode::kLinearOnly, call), objective.outputs);
  if (objective.hybrid_outputs > 0) AddTerm(sum, HybridOutputsTerm(call), objective.hybrid_outputs);
  if (objective.hybrid_weights > 0)
    AddTerm(sum, attention::GeneralHybridWeights(call), objective.hybrid_weights);
  TORCH_CHECK(sum.d_w_q.defined(), "the transfer objective has no term; give one a weight above 0");
  return sum;
}

}  // namespace tandem
