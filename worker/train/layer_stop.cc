#include "worker/train/layer_stop.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace tandem {
namespace {

constexpr double kNone = std::numeric_limits<double>::infinity();

void CopyTensors(const LayerStop::Tensors& from, const LayerStop::Tensors& to) {
  for (const auto& [name, tensor] : to) at::Tensor(tensor).copy_(from.at(name));
}

}  // namespace

LayerStop::LayerStop(const LayerStopOptions& options, std::vector<Tensors> trained)
    : options_(options), trained_(std::move(trained)) {
  constexpr int64_t kNumbers = sizeof(Layer) / sizeof(double);
  const auto M = static_cast<int64_t>(trained_.size());
  layers_ = at::empty({M, kNumbers}, at::kDouble);
  for (int64_t layer = 0; layer < M; ++layer) At(layer) = {kNone, 0, kNone, 0, -1};
  for (const Tensors& tensors : trained_) {
    Tensors& kept = kept_.emplace_back();
    for (const auto& [name, tensor] : tensors) kept[name] = tensor.clone();
  }
}

LayerStop::Layer& LayerStop::At(int64_t layer) const {
  return reinterpret_cast<Layer*>(layers_.mutable_data_ptr<double>())[layer];
}

bool LayerStop::IsDue(int64_t steps_done) const {
  return steps_done % options_.every == 0 || steps_done == options_.steps;
}

void LayerStop::Add(int64_t steps_done, const std::vector<double>& losses) {
  for (size_t i = 0; i < trained_.size(); ++i) {
    Layer& layer = At(static_cast<int64_t>(i));
    if (layer.stopped_at >= 0) continue;
    const double loss = losses[i];
    const bool is_first = layer.lowest == kNone;
    if (loss < layer.lowest) {
      layer.lowest = loss;
      layer.kept_step = static_cast<double>(steps_done);
      CopyTensors(trained_[i], kept_[i]);
    }
    if (is_first || loss < layer.last_gain - options_.min_gain * std::abs(layer.last_gain)) {
      layer.last_gain = loss;
      layer.idle = 0;
    } else {
      layer.idle += 1;
    }
    const bool stops = layer.idle >= static_cast<double>(options_.patience);
    if (stops) layer.stopped_at = static_cast<double>(steps_done);
    if (stops || steps_done == options_.steps) CopyTensors(kept_[i], trained_[i]);
  }
}

bool LayerStop::HasStopped(int64_t layer) const {
  return At(layer).stopped_at >= 0;
}

int64_t LayerStop::NumLearning() const {
  auto count = static_cast<int64_t>(trained_.size());
  while (count > 0 && HasStopped(count - 1)) --count;
  return count;
}

double LayerStop::LowestLoss(int64_t layer) const {
  return At(layer).lowest;
}

void LayerStop::AddState(Tensors& state) const {
  state["stop.layers"] = layers_;
  for (const Tensors& kept : kept_) {
    for (const auto& [name, tensor] : kept) state["stop.kept." + name] = tensor;
  }
}

std::string LayerStop::ToJson() const {
  nlohmann::ordered_json json = {{"patience", options_.patience},
                                 {"every_steps", options_.every},
                                 {"min_gain", options_.min_gain},
                                 {"layers", nlohmann::ordered_json::array()}};
  for (int64_t i = 0; i < layers_.size(0); ++i) {
    const Layer& layer = At(i);
    nlohmann::ordered_json row = {{"loss", layer.lowest},
                                  {"kept_step", static_cast<int64_t>(layer.kept_step)},
                                  {"stopped_at", nullptr}};
    if (layer.stopped_at >= 0) row["stopped_at"] = static_cast<int64_t>(layer.stopped_at);
    json["layers"].push_back(row);
  }
  return json.dump();
}

}  // namespace tandem
