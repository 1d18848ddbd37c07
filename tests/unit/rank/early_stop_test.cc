// The early stop: when it strikes, what it gives back, and that a resume changes nothing.
#include "worker/rank/early_stop.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace tandem {
namespace {

constexpr int64_t kSteps = 10;
// linear_only at steps 0, 2, 4, ...: it gets better, then worse than at the start.
const std::vector<double> kLinear = {3.729, 3.682, 3.719, 3.738, 3.811, 3.9};

EarlyStopOptions Options() {
  return {.component = "linear_only", .every = 2, .slack = 0, .steps = kSteps};
}

// A stage whose one parameter counts its steps.
struct StageRun {
  explicit StageRun(const EarlyStopOptions& options)
      : stop(options, {{"layers.0.window_factor", parameter}}, [this] {
          const auto at = static_cast<size_t>(parameter.item<float>() / 2);
          return ComponentLosses{2.8, 2.9, kLinear.at(at)};
        }) {}
  int64_t StepUntilStop(int64_t from) {
    stop.Start();
    for (int64_t step = from; step < kSteps; ++step) {
      parameter.add_(1.0);
      if (stop.AfterStep(step + 1)) return step + 1;
    }
    return -1;
  }
  at::Tensor parameter = at::full({1}, 0.0, at::kFloat);
  EarlyStop stop;
};

TEST(EarlyStop, StopsAboveTheStartAndKeepsTheStateBefore) {
  StageRun run(Options());
  EXPECT_EQ(run.StepUntilStop(0), 6);
  EXPECT_EQ(run.parameter.item<float>(), 4) << "the state of the last good measurement";
  const auto json = nlohmann::json::parse(run.stop.ToJson(1));
  EXPECT_EQ(json["stage_index"], 1);
  EXPECT_EQ(json["component"], "linear_only");
  EXPECT_EQ(json["step"], 4);
  ASSERT_EQ(json["curve"].size(), 4u);
  EXPECT_EQ(json["curve"][3]["step"], 6);
  EXPECT_NEAR(json["curve"][3]["linear_only"].get<double>(), 3.738, 1e-6);
  EXPECT_EQ(
      json["words"],
      "stopped at step 6 of 10: the loss of linear_only was 3.738, above 3.729 at the stage's "
      "start; the state of step 4 was kept");
}

TEST(EarlyStop, SlackAndOtherComponentsLetItRun) {
  EarlyStopOptions options = Options();
  options.slack = 0.05;
  StageRun lenient(options);
  EXPECT_EQ(lenient.StepUntilStop(0), 8) << "3.811 is more than 3.729 + 0.05";
  options.component = "hybrid";
  StageRun hybrid(options);
  EXPECT_EQ(hybrid.StepUntilStop(0), -1);
  EXPECT_EQ(hybrid.parameter.item<float>(), kSteps);
  EXPECT_EQ(nlohmann::json::parse(hybrid.stop.ToJson(0))["step"], kSteps);
}

TEST(EarlyStop, ALossThatIsNoNumberStops) {
  const at::Tensor parameter = at::full({1}, 0.0, at::kFloat);
  int calls = 0;
  EarlyStop stop(Options(), {{"p", parameter}}, [&] {
    return ComponentLosses{1, 1, calls++ == 0 ? 3.0 : std::nan("")};
  });
  stop.Start();
  EXPECT_TRUE(stop.AfterStep(2));
  EXPECT_TRUE(nlohmann::json::parse(stop.ToJson(0))["curve"][1]["linear_only"].is_null());
}

// Killed after every step and continued from its checkpoint: the same stop, the same bits.
TEST(EarlyStop, AResumeChangesNothing) {
  StageRun whole(Options());
  whole.StepUntilStop(0);
  for (int64_t killed_at = 1; killed_at < 6; ++killed_at) {
    StageRun first(Options());
    first.stop.Start();
    for (int64_t step = 0; step < killed_at; ++step) {
      first.parameter.add_(1.0);
      ASSERT_FALSE(first.stop.AfterStep(step + 1));
    }
    StageRun second(Options());
    ASSERT_TRUE(RestoreTensors(first.stop.State(), second.stop.State()).ok());
    second.parameter.copy_(first.parameter);
    EXPECT_EQ(second.StepUntilStop(killed_at), 6) << killed_at;
    EXPECT_EQ(second.parameter.item<float>(), 4) << killed_at;
    EXPECT_EQ(second.stop.ToJson(1), whole.stop.ToJson(1)) << killed_at;
  }
}

}  // namespace
}  // namespace tandem
