// The real tandem-rank under mpirun: more ranks give the same run, and a killed run ends as an
// undisturbed one.
#include <chrono>
#include <cmath>
#include <thread>

#include "tests/multirank/attempt.h"
#include "worker/plan/messages.h"

namespace tandem::testing {
namespace {

// The example's base with another last weight of its file, of model.norm.weight, in bf16.
void CopyModelWithLastWeight(const std::string& to, uint16_t bits) {
  namespace fs = std::filesystem;
  fs::copy(std::string(TANDEM_SOURCE_DIR) + "/examples/base-4m", to, fs::copy_options::recursive);
  const std::string weights = to + "/model.safetensors";
  fs::permissions(weights, fs::perms::owner_write, fs::perm_options::add);
  std::fstream file(weights, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-2, std::ios::end);
  ASSERT_TRUE(file.write(reinterpret_cast<const char*>(&bits), sizeof bits).good());
}

class Ranks : public ::testing::Test {
 protected:
  void SetUp() override {
    work_ = std::string(TANDEM_BINARY_DIR) + "/tests/multirank/" +
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(work_);
  }

  Plan NewJob(const std::string& name) const {
    Plan plan = SmallPlan(work_ + "/" + name);
    WriteTokenFolder(plan.data.tokens);
    return plan;
  }

  static int Run(const Plan& plan, int64_t ranks) { return WaitForExit(StartAttempt(plan, ranks)); }

  std::string work_;
};

TEST_F(Ranks, OneAndTwoRanksHaveTheSameLosses) {
  const Plan one = NewJob("one"), two = NewJob("two");
  ASSERT_EQ(Run(one, 1), 0) << ErrorsOf(one);
  ASSERT_EQ(Run(two, 2), 0) << ErrorsOf(two);
  const auto a = LossesOf(one), b = LossesOf(two);
  ASSERT_EQ(a.size(), 20U);
  ASSERT_EQ(b.size(), 20U);
  for (const auto& [step, loss] : a) EXPECT_NEAR(b.at(step), loss, 1e-5 * std::abs(loss)) << step;
  for (const Plan& plan : {one, two}) {
    EXPECT_TRUE(PathExists(plan.job_folder + "/artifacts/report.json"));
    EXPECT_TRUE(PathExists(plan.job_folder + "/artifacts/model/manifest.json"));
  }
}

// A second source with a mask, drawn three times as often; attention stays within documents.
void AddMaskedSource(const std::string& folder) {
  const auto documents = RandomDocuments(40, 3);
  std::vector<std::vector<uint8_t>> labels;
  for (size_t i = 0; i < documents.size(); ++i) {
    labels.emplace_back(documents[i].size(), uint8_t{0});
    for (size_t t = 150 - i; t < labels[i].size(); ++t) labels[i][t] = 1;
  }
  ASSERT_TRUE(WriteShard(folder + "/answers", MakeShard(documents)).ok());
  ASSERT_TRUE(WriteShard(folder + "/answers.mask", MakeShard(labels)).ok());
  auto manifest = nlohmann::json::parse(*ReadFile(folder + "/manifest.json"));
  manifest["train_shards"] = {{{"name", "train"}, {"weight", 1}},
                              {{"name", "answers"}, {"weight", 3}}};
  for (const char* name : {"answers.bin", "answers.idx", "answers.mask.bin", "answers.mask.idx"}) {
    manifest["files"][name] = {{"sha256", *Sha256OfFile(folder + "/" + name)}};
  }
  ASSERT_TRUE(WriteFileDurably(folder + "/manifest.json", manifest.dump()).ok());
}

// Ranks have different numbers of labels: the loss is the mean over those of all.
TEST_F(Ranks, OneAndTwoRanksAgreeOnMasksAndWeights) {
  Plan one = NewJob("one"), two = NewJob("two");
  for (Plan* plan : {&one, &two}) {
    AddMaskedSource(plan->data.tokens);
    plan->data.document_mask = true;
  }
  ASSERT_EQ(Run(one, 1), 0) << ErrorsOf(one);
  ASSERT_EQ(Run(two, 2), 0) << ErrorsOf(two);
  const auto a = LossesOf(one), b = LossesOf(two);
  ASSERT_EQ(a.size(), 20U);
  ASSERT_EQ(b.size(), 20U);
  for (const auto& [step, loss] : a) EXPECT_NEAR(b.at(step), loss, 1e-5 * std::abs(loss)) << step;
}

// The estimate is the first attempt's, and what several attempts did is counted once.
void ExpectCostOfOneRun(const Plan& plan, const std::string& estimate) {
  EXPECT_EQ(*ReadFile(plan.job_folder + "/artifacts/estimate.json"), estimate);
  const auto report = nlohmann::json::parse(*ReadFile(plan.job_folder + "/artifacts/report.json"));
  const auto& stages = report["cost"]["stages"];
  ASSERT_EQ(stages.size(), plan.stages.size() + 1) << "evaluate, too";
  for (const auto& stage : stages) {
    EXPECT_EQ(stage["tokens"], stage["estimate"]["tokens"]) << stage;
    EXPECT_TRUE(stage["error"]["seconds"].is_number()) << stage;
    EXPECT_GT(stage["peak_memory_bytes"], 1e7) << stage;
  }
}

// Kills mpirun's whole group once `lines` steps are written, then resumes with a new epoch.
TEST_F(Ranks, AKilledRunEndsBitForBitLikeAnUndisturbedOne) {
  const Plan calm = NewJob("calm");
  ASSERT_EQ(Run(calm, 2), 0) << ErrorsOf(calm);
  Plan killed = NewJob("killed");
  std::string estimate;
  for (const size_t lines : {6U, 15U}) {
    const pid_t mpirun = StartAttempt(killed, 2);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (LossesOf(killed).size() < lines - (killed.epoch > 1 ? 4 : 0) &&
           std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
    kill(-mpirun, SIGKILL);
    EXPECT_NE(WaitForExit(mpirun), 0);
    const auto newest =
        FindNewestCheckpoint(killed.job_folder, killed.spec_sha256, killed.epoch + 1);
    ASSERT_TRUE(newest.ok() && newest->has_value()) << "no checkpoint after " << lines << " steps";
    if (estimate.empty()) estimate = *ReadFile(killed.job_folder + "/artifacts/estimate.json");
    killed.resume_from = **newest;
    ++killed.epoch;
  }
  ASSERT_EQ(Run(killed, 2), 0) << ErrorsOf(killed);
  EXPECT_EQ(ResultOf(killed), ResultOf(calm));
  EXPECT_EQ(ResultOf(calm).size(), 2U);
  ExpectCostOfOneRun(killed, estimate);
}

// Stage index -> steps that were taken over from another job.
std::map<int64_t, int64_t> ReusedSteps(const Plan& plan) {
  std::map<int64_t, int64_t> reused;
  std::ifstream file(plan.job_folder + "/attempts/1/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    reused[json.at("stage_index").get<int64_t>()] += json.value("reused", false);
  }
  return reused;
}

TEST_F(Ranks, StagesOfAnotherJobGiveTheModelThatTrainingGives) {
  Plan trained = NewJob("trained"), same = NewJob("same"), other = NewJob("other");
  for (Plan* plan : {&trained, &same, &other}) {
    plan->stage_cache = work_ + "/stages";
    // Steps that grow far too long: early stop strikes, and what it says must be taken over, too.
    plan->stages[1].learning_rate = 0.05;
    plan->stages[1].warmup_steps = 10;
    plan->stages[1].stop_slack = 0;
  }
  other.stages[1].lora_rank = 4;
  for (const Plan& plan : {trained, same, other}) ASSERT_EQ(Run(plan, 2), 0) << ErrorsOf(plan);
  using Steps = std::map<int64_t, int64_t>;
  EXPECT_EQ(ReusedSteps(trained), (Steps{{0, 0}, {1, 0}}));
  EXPECT_EQ(ReusedSteps(same), (Steps{{0, 10}, {1, 6}}));
  EXPECT_EQ(ReusedSteps(other), (Steps{{0, 10}, {1, 0}}));
  EXPECT_EQ(ResultOf(same).at("weights"), ResultOf(trained).at("weights"));
  EXPECT_NE(ResultOf(other).at("weights"), ResultOf(trained).at("weights"));
  const auto early_stop = [](const Plan& plan) {
    return *ReadFile(plan.job_folder + "/artifacts/early_stop.json");
  };
  EXPECT_EQ(early_stop(same), early_stop(trained));
  EXPECT_NE(early_stop(same).find("stopped at step 6"), std::string::npos) << early_stop(same);
}

TEST_F(Ranks, FailuresHaveTheirExitCodes) {
  Plan odd = NewJob("odd");
  odd.stages[0].batch_size = 3;
  EXPECT_EQ(Run(odd, 2), static_cast<int>(RankExit::kBadPlan));

  const Plan foreign = NewJob("foreign");
  const std::string manifest = foreign.data.tokens + "/manifest.json";
  auto json = nlohmann::json::parse(*ReadFile(manifest));
  json["tokenizer_sha256"] = std::string(64, 'f');
  ASSERT_TRUE(WriteFileDurably(manifest, json.dump()).ok());
  EXPECT_EQ(Run(foreign, 1), static_cast<int>(RankExit::kDataOrStorage));
  EXPECT_NE(ErrorsOf(foreign).find("prepare again with this model"), std::string::npos)
      << ErrorsOf(foreign);

  Plan damaged = NewJob("damaged");
  ASSERT_TRUE(WriteFileDurably(damaged.data.tokens + "/train.bin", "short").ok());
  EXPECT_EQ(Run(damaged, 2), static_cast<int>(RankExit::kDataOrStorage));

  Plan broken = NewJob("broken");
  broken.model = work_ + "/nan_model";
  CopyModelWithLastWeight(broken.model, 0x7fc0);
  EXPECT_EQ(Run(broken, 2), static_cast<int>(RankExit::kDataOrStorage));
  EXPECT_NE(ErrorsOf(broken).find("tensor 'model.norm.weight' holds NaN"), std::string::npos)
      << ErrorsOf(broken);
}

// A scale near the end of bf16 overflows behind the last norm, which transfer does not read and
// finetuning does: its first step ends the run, and what transfer made stays.
TEST_F(Ranks, ALossThatIsNotFiniteLeavesTheCheckpointBefore) {
  Plan wild = NewJob("wild");
  wild.model = work_ + "/huge_model";
  CopyModelWithLastWeight(wild.model, 0x7f7f);
  EXPECT_EQ(Run(wild, 2), static_cast<int>(RankExit::kNonFiniteLoss)) << ErrorsOf(wild);
  EXPECT_NE(ErrorsOf(wild).find("lower finetune.learning_rate"), std::string::npos)
      << ErrorsOf(wild);
  const auto newest = FindNewestCheckpoint(wild.job_folder, wild.spec_sha256, wild.epoch + 1);
  ASSERT_TRUE(newest.ok() && newest->has_value());
  const CheckpointManifest kept = VerifyCheckpoint(**newest).value();
  EXPECT_EQ(kept.stage, "attention_transfer");
  EXPECT_EQ(kept.stage_step, wild.stages[0].steps);
}

}  // namespace
}  // namespace tandem::testing
