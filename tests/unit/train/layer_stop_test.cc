// When a layer stops, what it keeps, and that a resume changes nothing, on known curves.
#include "worker/train/layer_stop.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "worker/checkpoint/checkpoint.h"

namespace tandem {
namespace {

constexpr int64_t kSteps = 14, kEvery = 2;
// At steps 0, 2, 4, ...: falls, then rises; falls ever slower; never gets better than at its start.
const std::vector<std::vector<double>> kCurves = {{5.0, 4.0, 3.0, 3.1, 3.2, 9, 9, 9},
                                                  {5.0, 4.0, 3.9, 3.85, 3.84, 3.83, 3.82, 3.81},
                                                  {2.0, 2.5, 2.1, 9, 9, 9, 9, 9}};

// Layers of one parameter each, which counts the steps that it was taught.
struct LayerRun {
  explicit LayerRun(const LayerStopOptions& options) : stop(options, Trained()) {}
  std::vector<LayerStop::Tensors> Trained() {
    std::vector<LayerStop::Tensors> trained;
    for (size_t i = 0; i < kCurves.size(); ++i) {
      parameters.push_back(at::full({1}, 0.0, at::kFloat));
      trained.push_back({{"layers." + std::to_string(i), parameters.back()}});
    }
    return trained;
  }
  void Measure(int64_t steps_done) {
    if (!stop.IsDue(steps_done)) return;
    std::vector<double> losses;
    for (const auto& curve : kCurves) losses.push_back(curve[size_t(steps_done / kEvery)]);
    stop.Add(steps_done, losses);
  }
  // Steps from ... to-1.
  void Take(int64_t from, int64_t to) {
    if (from == 0) Measure(0);
    for (int64_t step = from; step < to && stop.NumLearning() > 0; ++step) {
      for (size_t i = 0; i < parameters.size(); ++i) {
        if (!stop.HasStopped(static_cast<int64_t>(i))) parameters[i].add_(1.0);
      }
      Measure(step + 1);
    }
  }
  std::vector<float> Values() const {
    std::vector<float> values;
    for (const at::Tensor& parameter : parameters) values.push_back(parameter.item<float>());
    return values;
  }
  std::vector<at::Tensor> parameters;
  LayerStop stop;
};

LayerStopOptions Options() {
  return {.patience = 2, .every = kEvery, .min_gain = 0, .steps = kSteps};
}

TEST(LayerStop, EachLayerStopsByItselfAndKeepsItsLowestLoss) {
  LayerRun run(Options());
  run.Take(0, kSteps);
  EXPECT_EQ(run.Values(), (std::vector<float>{4, 14, 0})) << "the start counts, too";
  const auto json = nlohmann::json::parse(run.stop.ToJson());
  EXPECT_EQ(json["patience"], 2);
  EXPECT_EQ(json["every_steps"], kEvery);
  EXPECT_EQ(json["layers"][0],
            (nlohmann::json{{"loss", 3.0}, {"kept_step", 4}, {"stopped_at", 8}}));
  EXPECT_TRUE(json["layers"][1]["stopped_at"].is_null());
  EXPECT_EQ(json["layers"][2],
            (nlohmann::json{{"loss", 2.0}, {"kept_step", 0}, {"stopped_at", 4}}));
  EXPECT_EQ(run.stop.NumLearning(), 2) << "the second layer, and the first for its sake";
}

// A loss that falls by less than the gain is kept all the same.
TEST(LayerStop, AGainHasToBeLargeEnough) {
  LayerStopOptions options = Options();
  options.min_gain = 0.03;
  LayerRun run(options);
  run.Take(0, kSteps);
  // 3.9 is no gain on 4.0, 3.85 is; 3.84 and 3.83 are none on that, and lower.
  EXPECT_EQ(run.Values(), (std::vector<float>{4, 10, 0}));
  const auto second = nlohmann::json::parse(run.stop.ToJson())["layers"][1];
  EXPECT_EQ(second["stopped_at"], 10);
  EXPECT_EQ(run.stop.NumLearning(), 0);
}

TEST(LayerStop, ALossThatIsNoNumberIsNoGain) {
  const at::Tensor parameter = at::full({1}, 7.0, at::kFloat);
  LayerStop stop(Options(), {{{"p", parameter}}});
  stop.Add(0, {3.0});
  parameter.fill_(8.0);
  stop.Add(2, {std::nan("")});
  EXPECT_FALSE(stop.HasStopped(0));
  stop.Add(4, {std::nan("")});
  EXPECT_TRUE(stop.HasStopped(0));
  EXPECT_EQ(parameter.item<float>(), 7);
  EXPECT_EQ(stop.LowestLoss(0), 3.0);
}

TEST(LayerStop, TheLastStepIsMeasuredWhateverTheInterval) {
  LayerStopOptions options = Options();
  options.steps = 5;
  LayerRun run(options);
  EXPECT_TRUE(run.stop.IsDue(0));
  EXPECT_FALSE(run.stop.IsDue(1));
  EXPECT_TRUE(run.stop.IsDue(4));
  EXPECT_TRUE(run.stop.IsDue(5));
}

// Killed after every step and continued from its checkpoint.
TEST(LayerStop, AResumeChangesNothing) {
  LayerRun whole(Options());
  whole.Take(0, kSteps);
  for (int64_t killed_at = 1; killed_at < kSteps; ++killed_at) {
    LayerRun first(Options()), second(Options());
    first.Take(0, killed_at);
    NamedTensors saved, live;
    first.stop.AddState(saved);
    second.stop.AddState(live);
    ASSERT_TRUE(RestoreTensors(saved, live).ok());
    for (size_t i = 0; i < first.parameters.size(); ++i) {
      second.parameters[i].copy_(first.parameters[i]);
    }
    second.Take(killed_at, kSteps);
    EXPECT_EQ(second.Values(), whole.Values()) << killed_at;
    EXPECT_EQ(second.stop.ToJson(), whole.stop.ToJson()) << killed_at;
  }
}

}  // namespace
}  // namespace tandem
