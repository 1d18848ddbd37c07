#include "worker/rank/early_stop.h"

#include <ATen/ops/full.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace tandem {
namespace {

std::string Rounded(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", static_cast<double>(value));
  return text;
}

// JSON has no NaN.
nlohmann::ordered_json Number(float value) {
  return std::isfinite(value) ? nlohmann::ordered_json(static_cast<double>(value))
                              : nlohmann::ordered_json(nullptr);
}

}  // namespace

EarlyStop::EarlyStop(const EarlyStopOptions& options, NamedTensors parameters, Measure measure)
    : options_(options), parameters_(std::move(parameters)), measure_(std::move(measure)) {
  for (const auto& [name, tensor] : parameters_) kept_[name] = tensor.clone();
  const int64_t measurements = options_.steps / options_.every + 2;
  curve_ = at::full({measurements, 4}, std::numeric_limits<float>::quiet_NaN(), at::kFloat);
}

void EarlyStop::Start() {
  if (Points().empty()) Append(0);
}

bool EarlyStop::AfterStep(int64_t steps_done) {
  if (steps_done % options_.every != 0 && steps_done != options_.steps) return false;
  Append(steps_done);
  const std::vector<Point> points = Points();
  const bool good = IsGood(points.back(), points.front());
  for (const auto& [name, tensor] : parameters_) {
    at::Tensor live = tensor, kept = kept_.at(name);
    if (good) {
      kept.copy_(live);
    } else {
      live.copy_(kept);
    }
  }
  return !good;
}

NamedTensors EarlyStop::State() const {
  NamedTensors state{{"stop.curve", curve_}};
  for (const auto& [name, tensor] : kept_) state["stop.kept." + name] = tensor;
  return state;
}

std::string EarlyStop::ToJson(int64_t stage_index) const {
  const std::vector<Point> points = Points();
  const Point& start = points.front();
  const Point& last = points.back();
  const bool stopped = !IsGood(last, start);
  const int64_t kept_step = stopped ? points[points.size() - 2].step : last.step;
  std::string words;
  if (stopped) {
    words = "stopped at step " + std::to_string(last.step) + " of " +
            std::to_string(options_.steps) + ": the loss of " + options_.component + " was " +
            Rounded(LossOf(last)) + ", above " + Rounded(LossOf(start)) +
            " at the stage's start; the state of step " + std::to_string(kept_step) + " was kept";
  } else {
    words = "ran all " + std::to_string(options_.steps) + " steps: the loss of " +
            options_.component + " never rose above " + Rounded(LossOf(start)) +
            ", its value at the stage's start";
  }
  if (options_.slack > 0) words += " (slack " + Rounded(static_cast<float>(options_.slack)) + ")";
  nlohmann::ordered_json json = {{"stage_index", stage_index},
                                 {"component", options_.component},
                                 {"step", kept_step},
                                 {"words", words},
                                 {"curve", nlohmann::ordered_json::array()}};
  for (const Point& point : points) {
    json["curve"].push_back({{"step", point.step},
                             {"hybrid", Number(point.hybrid)},
                             {"window_only", Number(point.window_only)},
                             {"linear_only", Number(point.linear_only)}});
  }
  return json.dump();
}

std::vector<EarlyStop::Point> EarlyStop::Points() const {
  std::vector<Point> points;
  const float* row = curve_.const_data_ptr<float>();
  for (int64_t i = 0; i < curve_.size(0) && !std::isnan(row[0]); ++i, row += 4) {
    points.push_back({static_cast<int64_t>(row[0]), row[1], row[2], row[3]});
  }
  return points;
}

float EarlyStop::LossOf(const Point& point) const {
  if (options_.component == "hybrid") return point.hybrid;
  return options_.component == "window_only" ? point.window_only : point.linear_only;
}

// A loss that is not a number is not good.
bool EarlyStop::IsGood(const Point& point, const Point& start) const {
  return static_cast<double>(LossOf(point)) <= static_cast<double>(LossOf(start)) + options_.slack;
}

void EarlyStop::Append(int64_t step) {
  const int64_t place = static_cast<int64_t>(Points().size());
  TANDEM_CHECK(place < curve_.size(0));
  const ComponentLosses losses = measure_();
  float* row = curve_.mutable_data_ptr<float>() + 4 * place;
  // Steps stay below 2^24: exact in fp32.
  row[0] = static_cast<float>(step);
  row[1] = static_cast<float>(losses.hybrid);
  row[2] = static_cast<float>(losses.window_only);
  row[3] = static_cast<float>(losses.linear_only);
}

}  // namespace tandem
