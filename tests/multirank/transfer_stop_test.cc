// attention_transfer.early_stop in the real tandem-rank: layers stop alike on any number of ranks,
// and a killed run ends as an undisturbed one.
#include <chrono>
#include <cmath>
#include <thread>

#include "tests/multirank/attempt.h"

namespace tandem::testing {
namespace {

constexpr int64_t kSteps = 60;

class TransferStopRanks : public ::testing::Test {
 protected:
  // Layers stop at steps of their own, the last before the stage's end.
  Plan NewJob(const std::string& name) const {
    Plan plan = SmallPlan(std::string(TANDEM_BINARY_DIR) + "/tests/multirank/TransferStop" + name);
    std::filesystem::remove_all(plan.job_folder);
    WriteTokenFolder(plan.data.tokens);
    StagePlan& transfer = plan.stages[0];
    transfer.steps = kSteps;
    transfer.stop_patience = 2;
    transfer.stop_every = 3;
    transfer.stop_min_gain = 0.02;
    transfer.stop_sequences = 6;
    plan.stages.resize(1);
    plan.data.document_mask = true;
    return plan;
  }
};

// The transfer's last line of metrics, of any attempt.
nlohmann::json LastLine(const Plan& plan) {
  std::ifstream file(plan.job_folder + "/attempts/" + std::to_string(plan.epoch) +
                     "/metrics.jsonl");
  nlohmann::json last;
  for (std::string line; std::getline(file, line);) last = nlohmann::json::parse(line);
  return last;
}

TEST_F(TransferStopRanks, OneAndTwoRanksStopTheSameLayers) {
  const Plan one = NewJob("One"), two = NewJob("Two");
  ASSERT_EQ(WaitForExit(StartAttempt(one, 1)), 0) << ErrorsOf(one);
  ASSERT_EQ(WaitForExit(StartAttempt(two, 2)), 0) << ErrorsOf(two);
  const auto a = LastLine(one), b = LastLine(two);
  EXPECT_EQ(a["step"], b["step"]);
  EXPECT_LT(a["step"], kSteps) << "the stage must end with its layers";
  const auto &layers = a["layer_stops"]["layers"], &others = b["layer_stops"]["layers"];
  ASSERT_FALSE(layers.empty());
  ASSERT_EQ(layers.size(), others.size());
  bool differ = false;
  for (size_t i = 0; i < layers.size(); ++i) {
    EXPECT_EQ(layers[i]["stopped_at"], others[i]["stopped_at"]) << i;
    EXPECT_EQ(layers[i]["kept_step"], others[i]["kept_step"]) << i;
    EXPECT_NEAR(layers[i]["loss"].get<double>(), others[i]["loss"].get<double>(), 1e-4) << i;
    differ = differ || layers[i]["stopped_at"] != layers[0]["stopped_at"];
  }
  EXPECT_TRUE(differ) << "the case must stop layers one by one: " << layers;
  const auto losses = LossesOf(one), same = LossesOf(two);
  EXPECT_EQ(losses.size(), same.size());
  for (const auto& [step, loss] : losses) EXPECT_NEAR(same.at(step), loss, 1e-5 * loss) << step;
  const auto report = nlohmann::json::parse(*ReadFile(one.job_folder + "/artifacts/report.json"));
  EXPECT_EQ(report["transfer_divergence"][0]["layers"], a["divergences"]);
}

TEST_F(TransferStopRanks, AKilledRunEndsBitForBitLikeAnUndisturbedOne) {
  const Plan calm = NewJob("Calm");
  ASSERT_EQ(WaitForExit(StartAttempt(calm, 2)), 0) << ErrorsOf(calm);
  const size_t steps = LossesOf(calm).size();
  Plan killed = NewJob("Killed");
  const pid_t mpirun = StartAttempt(killed, 2);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (LossesOf(killed).size() + 4 < steps && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  kill(-mpirun, SIGKILL);
  EXPECT_NE(WaitForExit(mpirun), 0);
  const auto newest = FindNewestCheckpoint(killed.job_folder, killed.spec_sha256, killed.epoch + 1);
  ASSERT_TRUE(newest.ok() && newest->has_value());
  killed.resume_from = **newest;
  ++killed.epoch;
  ASSERT_EQ(WaitForExit(StartAttempt(killed, 2)), 0) << ErrorsOf(killed);
  EXPECT_EQ(ResultOf(killed), ResultOf(calm));
  EXPECT_EQ(ResultOf(calm).size(), 2U);
  EXPECT_EQ(LastLine(killed)["layer_stops"], LastLine(calm)["layer_stops"]);
}

}  // namespace
}  // namespace tandem::testing
