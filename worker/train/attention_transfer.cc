#include "worker/train/attention_transfer.h"

#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "worker/train/gradient_sum.h"

namespace tandem {
namespace {

constexpr double kNoLoss = std::numeric_limits<double>::quiet_NaN();

TransferObjective ObjectiveOf(const AttentionTransferOptions& options) {
  return options.objective == "mixture" ? options.mixture
                                        : TransferObjectiveFromWord(options.objective);
}

// A cross-entropy of attention weights and nothing else.
bool IsByWeights(const TransferObjective& objective) {
  return objective.weights == 1 && objective.outputs == 0 && !objective.TrainsFactor();
}

std::map<std::string, at::Tensor> TrainedOf(const Parameters& parameters, int64_t layer_index,
                                            bool trains_factor) {
  const LayerParameters& layer = parameters.layer(layer_index);
  const std::string prefix = LayerPrefix(layer_index);
  std::map<std::string, at::Tensor> trained = {{prefix + "feature_map_q", layer.feature_map_q},
                                               {prefix + "feature_map_k", layer.feature_map_k}};
  if (layer.feature_map_q_bias.defined()) {
    trained[prefix + "feature_map_q_bias"] = layer.feature_map_q_bias;
    trained[prefix + "feature_map_k_bias"] = layer.feature_map_k_bias;
  }
  if (trains_factor) trained[prefix + "window_factor"] = layer.window_factor;
  return trained;
}

}  // namespace

AttentionTransfer::AttentionTransfer(const Llama& model, const Parameters& parameters,
                                     Collective& collective,
                                     const AttentionTransferOptions& options)
    : model_(model),
      parameters_(parameters),
      collective_(collective),
      options_(options),
      teacher_(model, parameters, ObjectiveOf(options), options.attention) {
  std::vector<std::map<std::string, at::Tensor>> trained;
  for (int64_t i = 0; i < parameters.num_layers(); ++i) {
    trained.push_back(TrainedOf(parameters, i, ObjectiveOf(options).TrainsFactor()));
    optimisers_.emplace_back(trained.back());
  }
  if (options.stop.patience > 0) stop_.emplace(options.stop, std::move(trained));
}

double AttentionTransfer::SumOverRanks(double value) const {
  collective_.AllReduceSum(std::span<double>(&value, 1));
  return value;
}

double AttentionTransfer::TeachLayer(int64_t layer_index, const at::Tensor& x_BTD,
                                     const std::vector<DocumentSpan>& spans,
                                     LayerTeacher::Gradients& gradients, at::Tensor& y_BHTd) const {
  const auto ranks = static_cast<double>(collective_.size());
  const double share = 1 / (static_cast<double>(parameters_.num_layers()) * ranks);
  const double mine = teacher_.Teach(layer_index, x_BTD, spans, share, gradients, y_BHTd);
  const double loss = SumOverRanks(mine / ranks);
  SumGradients(collective_, gradients);
  return loss;
}

std::vector<double> AttentionTransfer::VisitLayers(const StepBatch& batch, int64_t layers,
                                                   const Visit& visit) const {
  const std::vector<DocumentSpan> spans = DocumentSpansOf(batch);
  std::vector<double> figures;
  at::Tensor x = model_.Embed(batch.ids_BT), y;
  for (int64_t i = 0; i < layers; ++i) {
    figures.push_back(visit(i, x, spans, y));
    if (i + 1 < layers) x = model_.FinishLayer(x, y, i, nullptr);
  }
  return figures;
}

std::vector<double> AttentionTransfer::OverWatchedText(int64_t layers, const Visit& visit) const {
  const int64_t rank = collective_.rank(), ranks = collective_.size();
  const int64_t groups = options_.watched.count;
  std::vector<double> mine;  // sequences of a group and its figures, group by group
  for (int64_t group = groups * rank / ranks; group < groups * (rank + 1) / ranks; ++group) {
    const StepBatch batch = options_.watched.read(group);
    const std::vector<double> figures = VisitLayers(batch, layers, visit);
    mine.push_back(static_cast<double>(batch.ids_BT.size(0)));
    mine.insert(mine.end(), figures.begin(), figures.end());
  }
  const std::vector<double> all = collective_.AllGather(mine);
  std::vector<double> means(static_cast<size_t>(layers), 0);
  double sequences = 0;
  for (size_t at = 0; at < all.size(); at += means.size() + 1) {
    sequences += all[at];
    for (size_t i = 0; i < means.size(); ++i) means[i] += all[at] * all[at + 1 + i];
  }
  for (double& mean : means) mean /= sequences;
  return means;
}

void AttentionTransfer::Rehearse(const StepBatch& batch) {
  LayerTeacher::Gradients gradients;
  LossesAndGradients(batch, gradients);
}

double AttentionTransfer::StepLayer(int64_t layer_index, const at::Tensor& x_BTD,
                                    const std::vector<DocumentSpan>& spans, int64_t step,
                                    at::Tensor& y_BHTd) {
  LayerTeacher::Gradients gradients;
  const double loss = TeachLayer(layer_index, x_BTD, spans, gradients, y_BHTd);
  if (!std::isfinite(loss) || !std::isfinite(GradientNorm(gradients))) {
    throw NonFiniteLoss("attention transfer, step " + std::to_string(step) + ", layer " +
                        std::to_string(layer_index) + ": loss or gradient is not finite (loss " +
                        std::to_string(loss) + "); lower attention_transfer.learning_rate");
  }
  optimisers_[static_cast<size_t>(layer_index)].Step(gradients, options_.schedule.At(step));
  return loss;
}

StepReport AttentionTransfer::Step(int64_t step, const StepBatch& batch) {
  at::NoGradGuard no_gradients;
  StepReport report;
  report.learning_rate = options_.schedule.At(step);
  if (stop_ && step == 0) Watch(0, &report);
  const int64_t M = parameters_.num_layers();
  const bool tells_divergence =
      !stop_ && IsByWeights(ObjectiveOf(options_)) && step + 1 == options_.schedule.steps;
  const Visit visit = [&](int64_t i, const at::Tensor& x, const auto& spans, at::Tensor& y) {
    if (HasStopped(i)) {
      y = teacher_.Output(i, x, spans);
      return kNoLoss;
    }
    const double loss = StepLayer(i, x, spans, step, y);
    if (tells_divergence) {
      const auto ranks = static_cast<double>(collective_.size());
      const double entropy = SumOverRanks(teacher_.Entropy(i, x, spans) / ranks);
      report.layer_divergences.push_back(loss - entropy);
    }
    return loss;
  };
  report.layer_losses = VisitLayers(batch, stop_ ? stop_->NumLearning() : M, visit);
  report.layer_losses.resize(static_cast<size_t>(M), kNoLoss);
  for (int64_t i = 0; i < M; ++i) {
    const double loss =
        HasStopped(i) ? stop_->LowestLoss(i) : report.layer_losses[static_cast<size_t>(i)];
    report.loss += loss / static_cast<double>(M);
  }
  if (stop_ && stop_->IsDue(step + 1)) Watch(step + 1, &report);
  return report;
}

void AttentionTransfer::Watch(int64_t steps_done, StepReport* report) {
  const Visit visit = [&](int64_t i, const at::Tensor& x, const auto& spans, at::Tensor& y) {
    LayerTeacher::Gradients unread;
    if (!HasStopped(i)) return teacher_.Teach(i, x, spans, 1, unread, y);
    y = teacher_.Output(i, x, spans);
    return kNoLoss;
  };
  std::vector<double> losses = OverWatchedText(stop_->NumLearning(), visit);
  losses.resize(optimisers_.size(), kNoLoss);
  stop_->Add(steps_done, losses);
  report->finished = stop_->NumLearning() == 0;
  if (!report->finished && steps_done < options_.schedule.steps) return;
  report->layer_stops = stop_->ToJson();
  if (IsByWeights(ObjectiveOf(options_))) report->layer_divergences = WatchedDivergences();
}

std::vector<double> AttentionTransfer::WatchedDivergences() const {
  const Visit visit = [&](int64_t i, const at::Tensor& x, const auto& spans, at::Tensor& y) {
    y = teacher_.Output(i, x, spans);
    return teacher_.Entropy(i, x, spans);
  };
  std::vector<double> divergences = OverWatchedText(parameters_.num_layers(), visit);
  for (size_t i = 0; i < divergences.size(); ++i) {
    divergences[i] = stop_->LowestLoss(static_cast<int64_t>(i)) - divergences[i];
  }
  return divergences;
}

std::vector<double> AttentionTransfer::LossesAndGradients(
    const StepBatch& batch, std::map<std::string, at::Tensor>& gradients) {
  at::NoGradGuard no_gradients;
  return VisitLayers(batch, parameters_.num_layers(),
                     [&](int64_t i, const at::Tensor& x, const auto& spans, at::Tensor& y) {
                       LayerTeacher::Gradients of_layer;
                       const double loss = TeachLayer(i, x, spans, of_layer, y);
                       gradients.merge(of_layer);
                       return loss;
                     });
}

std::map<std::string, at::Tensor> AttentionTransfer::State() const {
  std::map<std::string, at::Tensor> state = parameters_.tensors();
  for (const AdamW& optimiser : optimisers_) optimiser.AddState(state);
  if (stop_) stop_->AddState(state);
  return state;
}

}  // namespace tandem
