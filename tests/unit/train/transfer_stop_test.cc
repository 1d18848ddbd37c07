// Attention transfer with early stop: layers that stop change nothing for the others, keep what
// they had at their lowest loss, cost no more teaching, and a resume ends with the same bits.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/unit/train/tiny_model.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/train/attention_transfer.h"

namespace tandem::testing {
namespace {

constexpr int64_t kSteps = 24, kEvery = 2;

// One run of the stage, and the parameters after each of its steps.
struct StageRun {
  explicit StageRun(const AttentionTransferOptions& options)
      : stage(*model, parameters, *solo, options) {}
  void Take(int64_t from) {
    for (int64_t step = from; step < kSteps && !last.finished; ++step) {
      last = stage.Step(step, {RandomIds(2, 32, 64, 100 + step), 0});
      losses.push_back(last.layer_losses);
      after.push_back(Copy());
    }
  }
  NamedTensors Copy() const {
    NamedTensors copies;
    for (const auto& [name, tensor] : parameters.tensors()) copies[name] = tensor.clone();
    return copies;
  }
  std::unique_ptr<Llama> model = TinyModel();
  Parameters parameters{model->config(), TinyParameterOptions()};
  std::unique_ptr<Collective> solo = MakeSoloCollective();
  AttentionTransfer stage;
  std::vector<NamedTensors> after;
  std::vector<std::vector<double>> losses;
  StepReport last;
};

bool IsOfLayer(const std::string& name, size_t layer) {
  return name.starts_with("layers." + std::to_string(layer) + ".");
}

class TransferStop : public ::testing::TestWithParam<const char*> {
 protected:
  TransferStop() {
    at::set_num_threads(1);
    options_.objective = GetParam();
    options_.mixture = {.weights = 1, .outputs = 0, .hybrid_outputs = 1};
    options_.attention.window = 4;
    options_.schedule = {0.1, 0, kSteps, true};  // too fast: the loss soon rises
  }
  AttentionTransferOptions WithStop() const {
    AttentionTransferOptions options = options_;
    options.stop = {.patience = 2, .every = kEvery, .min_gain = 0.02, .steps = kSteps};
    options.watched = {3, [](int64_t group) {
                         return StepBatch{RandomIds(group == 2 ? 1 : 2, 32, 64, 7 + group), 0};
                       }};
    return options;
  }

  AttentionTransferOptions options_;
};

TEST_P(TransferStop, LeavesOtherLayersAloneAndKeepsTheLowest) {
  StageRun whole(options_), stopped(WithStop());
  const NamedTensors start = whole.Copy();
  whole.Take(0);
  stopped.Take(0);
  const auto told = nlohmann::json::parse(stopped.last.layer_stops)["layers"];
  ASSERT_EQ(told.size(), 2u);
  int64_t last = 0, stops = 0;
  for (size_t layer = 0; layer < told.size(); ++layer) {
    const bool ended = told[layer]["stopped_at"].is_null();
    const int64_t end = ended ? kSteps : told[layer]["stopped_at"].get<int64_t>();
    const int64_t kept = told[layer]["kept_step"];
    last = std::max(last, end);
    stops += ended ? 0 : 1;
    for (size_t step = 0; step < stopped.losses.size(); ++step) {
      const double loss = stopped.losses[step][layer];
      if (static_cast<int64_t>(step) < end) {
        EXPECT_EQ(loss, whole.losses[step][layer]) << "step " << step << ", layer " << layer;
      } else {
        EXPECT_TRUE(std::isnan(loss)) << "taught after its end";
      }
    }
    const NamedTensors& wanted = kept == 0 ? start : whole.after[static_cast<size_t>(kept - 1)];
    for (const auto& [name, tensor] : stopped.parameters.tensors()) {
      EXPECT_TRUE(!IsOfLayer(name, layer) || tensor.equal(wanted.at(name))) << name;
    }
  }
  EXPECT_GT(stops, 0) << "the case must stop a layer";
  EXPECT_EQ(static_cast<int64_t>(stopped.losses.size()), last) << "the stage ends with its layers";
  EXPECT_EQ(stopped.last.finished, last < kSteps || stops == 2);
  EXPECT_TRUE(std::isfinite(stopped.last.loss));
}

// The kept parameters, measured anew, have the loss that was told.
TEST_P(TransferStop, TheLossIsThatOfTheWatchedText) {
  const AttentionTransferOptions options = WithStop();
  StageRun run(options);
  run.Take(0);
  const auto told = nlohmann::json::parse(run.last.layer_stops)["layers"];
  std::vector<double> sums(2, 0);
  for (int64_t group = 0; group < 3; ++group) {
    std::map<std::string, at::Tensor> unread;
    const StepBatch batch = options.watched.read(group);
    const auto losses = run.stage.LossesAndGradients(batch, unread);
    for (size_t i = 0; i < 2; ++i) {
      sums[i] += losses[i] * static_cast<double>(batch.ids_BT.size(0)) / 5;
    }
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_NEAR(told[i]["loss"].get<double>(), sums[i], 1e-6 * sums[i]) << i;
  }
  const bool by_weights = options.objective == "weights";
  ASSERT_EQ(run.last.layer_divergences.size(), by_weights ? 2u : 0u);
  for (size_t i = 0; i < run.last.layer_divergences.size(); ++i) {
    EXPECT_GT(run.last.layer_divergences[i], 0);
    EXPECT_LT(run.last.layer_divergences[i], told[i]["loss"]);
  }
}

TEST_P(TransferStop, AResumeChangesNothing) {
  StageRun whole(WithStop());
  whole.Take(0);
  const auto steps = static_cast<int64_t>(whole.losses.size());
  for (int64_t killed_at = 1; killed_at < steps; ++killed_at) {
    StageRun first(WithStop()), second(WithStop());
    for (int64_t step = 0; step < killed_at; ++step) {
      first.stage.Step(step, {RandomIds(2, 32, 64, 100 + step), 0});
    }
    ASSERT_TRUE(RestoreTensors(first.stage.State(), second.stage.State()).ok());
    second.Take(killed_at);
    EXPECT_EQ(second.last.layer_stops, whole.last.layer_stops) << killed_at;
    const NamedTensors ended = whole.stage.State(), resumed = second.stage.State();
    for (const auto& [name, tensor] : ended) {
      EXPECT_TRUE(tensor.equal(resumed.at(name))) << name << ", killed at " << killed_at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Objectives, TransferStop,
                         ::testing::Values("weights", "outputs", "hybrid_outputs", "hybrid_weights",
                                           "mixture"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tandem::testing
