// attention.retain.auto: the choice, its file, and what is refused.
#include "worker/rank/retained_choice.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "tests/unit/evaluate/tiny_model.h"
#include "tests/unit/model_files/folder.h"
#include "worker/rank/failure.h"

namespace tandem {
namespace {

class RetainedChoiceTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteTinyModel(folder_.File("model"), true).ok());
    model_ = Llama::Load(folder_.File("model")).value();  // 2 layers of 2 groups
  }
  Plan PlanOf(int64_t groups) const {
    Plan plan;
    plan.job_folder = folder_.File("job");
    plan.attention.retain_auto = groups;
    return plan;
  }
  static std::vector<std::pair<int64_t, int64_t>> PlacesOf(const Plan& plan) {
    std::vector<std::pair<int64_t, int64_t>> places;
    for (const RetainedGroup& of : plan.attention.retained) places.emplace_back(of.layer, of.group);
    return places;
  }

  TestFolder folder_;
  std::unique_ptr<Llama> model_;
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
};

TEST_F(RetainedChoiceTest, TakesTheGroupsOfTheHighestScores) {
  Plan plan = PlanOf(1);
  const auto scores = nlohmann::json::parse(ChooseRetained(*model_, *solo_, plan));
  ASSERT_EQ(PlacesOf(plan).size(), 1u);
  const auto [layer, group] = PlacesOf(plan).front();
  for (const auto& of_layer : scores)
    for (const auto& score : of_layer) EXPECT_LE(score, scores.at(layer).at(group));
}

// A resumed job must not change its heads, whatever a later build would choose.
TEST_F(RetainedChoiceTest, ALaterAttemptTakesWhatStandsInTheFile) {
  Plan first = PlanOf(2);
  ChooseRetained(*model_, *solo_, first);
  const std::string path = folder_.File("job") + "/artifacts/retained.json";
  auto written = nlohmann::json::parse(*ReadFile(path));
  EXPECT_EQ(written["retained"].size(), 2u);
  written["retained"] = {{1, 1}, {0, 0}};
  ASSERT_TRUE(WriteFileDurably(path, written.dump()).ok());
  Plan later = PlanOf(2);
  ChooseRetained(*model_, *solo_, later);
  EXPECT_EQ(PlacesOf(later), (std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {0, 0}}));
}

TEST_F(RetainedChoiceTest, NothingIsChosenUnlessAskedFor) {
  Plan plan = PlanOf(0);
  EXPECT_EQ(ChooseRetained(*model_, *solo_, plan), "");
  EXPECT_TRUE(plan.attention.retained.empty());
  EXPECT_FALSE(PathExists(folder_.File("job")));
}

TEST_F(RetainedChoiceTest, OneGroupMustBeConverted) {
  Plan plan = PlanOf(4);
  try {
    ChooseRetained(*model_, *solo_, plan);
    FAIL() << "accepted";
  } catch (const RankFailure& failure) {
    EXPECT_EQ(failure.exit_code(), RankExit::kBadPlan);
    EXPECT_NE(
        std::string(failure.what()).find("attention.retain.auto is 4; the model has 4 groups"),
        std::string::npos);
  }
}

}  // namespace
}  // namespace tandem
