#include "worker/train/finetune.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "worker/train/distillation.h"
#include "worker/train/gradient_sum.h"

namespace tandem {
namespace {

bool IsLora(const std::string& name) {
  return name.find(".lora_") != std::string::npos;
}
bool IsFactor(const std::string& name) {
  return name.ends_with(".window_factor");
}

std::map<std::string, at::Tensor> TrainedTensors(const Parameters& parameters,
                                                 const FinetuneOptions& options) {
  std::map<std::string, at::Tensor> trained;
  for (const auto& [name, tensor] : parameters.tensors()) {
    const bool trains = IsLora(name)     ? true
                        : IsFactor(name) ? options.train_factor && options.mode == "hybrid"
                                         : options.train_maps;
    if (trains) trained[name] = tensor;
  }
  return trained;
}

ComponentMode ModeOf(const std::string& word) {
  if (word == "linear_only") return ComponentMode::kLinearOnly;
  return word == "window_only" ? ComponentMode::kWindowOnly : ComponentMode::kHybrid;
}

// The sequences of one kind, in order.
at::Tensor RowsWhere(const std::vector<bool>& flags, bool wanted) {
  std::vector<int64_t> rows;
  for (size_t i = 0; i < flags.size(); ++i) {
    if (flags[i] == wanted) rows.push_back(static_cast<int64_t>(i));
  }
  at::Tensor result = at::empty({static_cast<int64_t>(rows.size())}, at::kLong);
  std::copy(rows.begin(), rows.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

AttentionInputs SelectRows(const AttentionInputs& in, const at::Tensor& host_rows) {
  const at::Tensor rows = host_rows.to(in.qkv.q.device());
  AttentionInputs part = in;
  part.qkv = {in.qkv.q.index_select(0, rows), in.qkv.k.index_select(0, rows),
              in.qkv.v.index_select(0, rows)};
  return part;
}

AttentionCall CallOf(const AttentionInputs& in, const AttentionForm& form, int64_t layer_index) {
  AttentionCall call;
  call.q = in.qkv.q;
  call.k = in.qkv.k;
  call.v = in.qkv.v;
  call.w_q = in.w_q;
  call.w_k = in.w_k;
  call.b_q = in.b_q;
  call.b_k = in.b_k;
  call.gamma = in.gamma;
  call.form = form;
  call.retained = form.RetainedIn(layer_index);
  return call;
}

// Targets of the global batch. All ranks' batches have a mask, or none has.
double CountTargets(const StepBatch& batch, Collective& collective) {
  const int64_t B = batch.ids_BT.size(0), T = batch.ids_BT.size(1);
  if (!batch.label_mask_BT.defined()) return static_cast<double>(collective.size() * B * (T - 1));
  auto count = batch.label_mask_BT.narrow(1, 1, T - 1).sum(at::kDouble).item<double>();
  collective.AllReduceSum(std::span<double>(&count, 1));
  return std::max(count, 1.0);
}

}  // namespace

Finetune::Finetune(const Llama& model, const Parameters& parameters, Collective& collective,
                   const FinetuneOptions& options)
    : model_(model),
      parameters_(parameters),
      collective_(collective),
      options_(options),
      form_(options.attention),
      dropout_(options.seed, options.stage_index, options.dropout),
      optimiser_(TrainedTensors(parameters, options)) {}

at::Tensor Finetune::AttendRows(const AttentionInputs& in, int64_t layer_index,
                                const std::vector<bool>& dropped) const {
  const auto with_window = [&](const AttentionInputs& rows) {
    return Attend(ModeOf(options_.mode), CallOf(rows, form_, layer_index));
  };
  const auto without_window = [&](const AttentionInputs& rows) {
    AttentionCall call = CallOf(rows, form_, layer_index);
    call.window_off = options_.dropped_span == "outside";
    return Attend(call.window_off ? ComponentMode::kHybrid : ComponentMode::kLinearOnly, call);
  };
  const auto count = std::count(dropped.begin(), dropped.end(), true);
  if (count == static_cast<std::ptrdiff_t>(dropped.size())) return without_window(in);
  if (count == 0) return with_window(in);
  const at::Tensor with = RowsWhere(dropped, false), without = RowsWhere(dropped, true);
  const at::Tensor y =
      at::cat({with_window(SelectRows(in, with)), without_window(SelectRows(in, without))});
  return y.index_select(0, at::cat({with, without}).argsort().to(y.device()));
}

at::Tensor Finetune::AttendDocuments(const AttentionInputs& in, int64_t layer_index,
                                     const std::vector<bool>& dropped,
                                     const std::vector<DocumentSpan>& spans) const {
  if (spans.empty()) return AttendRows(in, layer_index, dropped);
  std::vector<at::Tensor> parts;
  for (const DocumentSpan& span : spans) {
    AttentionInputs part = in;
    part.qkv = Within(in.qkv, span);
    parts.push_back(AttendRows(part, layer_index, {dropped[static_cast<size_t>(span.row)]}));
  }
  return JoinSpans(parts, spans);
}

Finetune::DropoutRule Finetune::RuleAt(int64_t step) const {
  return [this, step](int64_t sample, int64_t layer_index) {
    return dropout_.IsDropped(step, sample, layer_index);
  };
}

void Finetune::FillFactorGradients(const StepBatch& batch, const DropoutRule& is_dropped,
                                   GradientMap& gradients) const {
  const int64_t B = batch.ids_BT.size(0) * collective_.size();
  for (int64_t i = 0; i < parameters_.num_layers(); ++i) {
    const std::string name = "layers." + std::to_string(i) + ".window_factor";
    if (!optimiser_.trained().contains(name) || gradients.contains(name)) continue;
    bool has_window = false;
    for (int64_t b = 0; b < B; ++b) has_window = has_window || !is_dropped(b, i);
    if (has_window) gradients[name] = at::zeros_like(optimiser_.trained().at(name));
  }
}

NextTokenGradient Finetune::LossAtTop(const StepBatch& batch, const at::Tensor& x,
                                      double targets) const {
  const double distill = options_.objective == "distill"   ? 1.0
                         : options_.objective == "mixture" ? options_.distill_weight
                                                           : 0.0;
  NextTokenGradient top;
  if (distill < 1.0) {
    const double share = 1.0 - distill;
    top = NextTokenBackward(model_, x, batch.ids_BT, share / targets, batch.label_mask_BT);
    top.loss_sum *= share;
  }
  if (distill == 0.0) return top;
  const DistillGradient soft =
      DistillBackward(model_, x, TeacherHiddenState(model_, batch.ids_BT, DocumentSpansOf(batch)),
                      batch.label_mask_BT, distill / targets);
  top.loss_sum += distill * soft.loss_sum;
  top.d_x_BTD = top.d_x_BTD.defined() ? top.d_x_BTD.add_(soft.d_x_BTD) : soft.d_x_BTD;
  return top;
}

double Finetune::LossAndGradients(const StepBatch& batch, const DropoutRule& is_dropped,
                                  GradientMap& gradients) {
  at::NoGradGuard no_gradients;
  const int64_t M = parameters_.num_layers(), B = batch.ids_BT.size(0);
  const std::vector<DocumentSpan> spans = DocumentSpansOf(batch);
  std::vector<LayerTape> tapes(static_cast<size_t>(M));
  LayerBackwardOptions layer_options;
  // Maps and window factors share a graph; what is not trained is dropped below.
  layer_options.train_maps = options_.train_maps || options_.train_factor;
  at::Tensor x = model_.Embed(batch.ids_BT);
  for (int64_t i = 0; i < M; ++i) {
    std::vector<bool> dropped(static_cast<size_t>(B));
    for (int64_t b = 0; b < B; ++b) {
      dropped[static_cast<size_t>(b)] = is_dropped(batch.first_sample + b, i);
    }
    const auto attend = [&](const AttentionInputs& in) {
      return AttendDocuments(in, i, dropped, spans);
    };
    x = ForwardLayer(model_, parameters_, i, x, attend, layer_options,
                     tapes[static_cast<size_t>(i)]);
  }
  const double targets = CountTargets(batch, collective_);
  const NextTokenGradient top = LossAtTop(batch, x, targets);
  for (int64_t i = M - 1; i >= 0; --i) {
    layer_options.input_gradient = i > 0;
    BackwardLayer(model_, i, top.d_x_BTD, layer_options, tapes[static_cast<size_t>(i)], gradients);
  }
  std::erase_if(gradients,
                [this](const auto& item) { return !optimiser_.trained().contains(item.first); });
  FillFactorGradients(batch, is_dropped, gradients);
  double loss = top.loss_sum / targets;
  collective_.AllReduceSum(std::span<double>(&loss, 1));
  SumGradients(collective_, gradients);
  return loss;
}

void Finetune::Rehearse(const StepBatch& batch) {
  GradientMap gradients;
  LossAndGradients(batch, RuleAt(0), gradients);
}

StepReport Finetune::Step(int64_t step, const StepBatch& batch) {
  at::NoGradGuard no_gradients;
  const DropoutRule rule = RuleAt(step);
  form_.window = WindowSizeAt(options_.window_schedule, step, options_.schedule.steps,
                              options_.attention.window);
  GradientMap gradients;
  StepReport report;
  report.learning_rate = options_.schedule.At(step);
  report.loss = LossAndGradients(batch, rule, gradients);
  report.grad_norm = GradientNorm(gradients);
  if (!std::isfinite(report.loss) || !std::isfinite(report.grad_norm)) {
    throw NonFiniteLoss("finetune, step " + std::to_string(step) + ": loss " +
                        std::to_string(report.loss) + ", gradient norm " +
                        std::to_string(report.grad_norm) + "; lower finetune.learning_rate");
  }
  if (options_.clip_norm > 0 && report.grad_norm > options_.clip_norm) {
    const double factor = options_.clip_norm / (report.grad_norm + 1e-6);
    for (auto& [name, gradient] : gradients) gradient = gradient.mul(factor);
  }
  optimiser_.Step(gradients, report.learning_rate);

  const int64_t M = parameters_.num_layers(), B = batch.ids_BT.size(0) * collective_.size();
  int64_t dropped = 0;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t i = 0; i < M; ++i) dropped += rule(b, i) ? 1 : 0;
  }
  report.window_dropped = static_cast<double>(dropped) / static_cast<double>(B * M);
  return report;
}

std::map<std::string, at::Tensor> Finetune::State() const {
  std::map<std::string, at::Tensor> state = parameters_.tensors();
  optimiser_.AddState(state);
  return state;
}

}  // namespace tandem
