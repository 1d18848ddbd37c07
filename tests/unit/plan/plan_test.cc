#include "worker/plan/plan.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

namespace tandem {
namespace {

Plan GoodPlan() {
  Plan plan;
  plan.job_uid = "u1";
  plan.job_name = "projects/default/jobs/a";
  plan.epoch = 3;
  plan.seed = 18446744073709551615u;
  plan.model = "/m";
  plan.job_folder = "/w/jobs/u1";
  plan.attempt_folder = "/w/jobs/u1/attempts/3";
  plan.socket = "/r/s";
  plan.ranks = 2;
  plan.data.tokens = "/w/cache/tokens/k";
  plan.attention.mixing_initial = 0.1;
  plan.attention.retained = {{5, 2}, {5, 3}};
  StagePlan transfer;
  transfer.kind = "attention_transfer";
  transfer.steps = 10;
  transfer.batch_size = 4;
  transfer.learning_rate = 1e-2;
  StagePlan finetune = transfer;
  finetune.kind = "finetune";
  finetune.lora_targets = {"q_proj", "v_proj"};
  finetune.ssd_schedule = {0.9, 0.5, 0};
  finetune.ssd_window_schedule = {4, 64};
  plan.stages = {transfer, finetune};
  return plan;
}

std::string Broken(const std::function<void(nlohmann::ordered_json&)>& change) {
  auto json = nlohmann::ordered_json::parse(PlanToJson(GoodPlan()));
  change(json);
  return json.dump();
}

std::string ErrorOf(const std::string& json) {
  const Result<Plan> plan = PlanFromJson(json);
  EXPECT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().code(), Code::kInvalidArgument);
  return plan.status().message();
}

TEST(Plan, SurvivesTheRoundTrip) {
  const std::string text = PlanToJson(GoodPlan());
  const Result<Plan> plan = PlanFromJson(text);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  EXPECT_EQ(PlanToJson(*plan), text);
  EXPECT_EQ(plan->seed, 18446744073709551615u);
  ASSERT_EQ(plan->stages.size(), 2u);
  EXPECT_EQ(plan->stages[1].ssd_schedule, (std::vector<double>{0.9, 0.5, 0}));
  EXPECT_EQ(plan->stages[1].ssd_window_schedule, (std::vector<int64_t>{4, 64}));
  ASSERT_EQ(plan->attention.retained.size(), 2u);
  EXPECT_EQ(plan->attention.retained[1].group, 3);
  EXPECT_EQ(plan->attention.mixing_initial, 0.1);
}

TEST(Plan, EveryKeyIsNeededAndNoOtherTaken) {
  const auto json = nlohmann::ordered_json::parse(PlanToJson(GoodPlan()));
  const std::vector<std::string> groups = {"",          "/attention", "/data",
                                           "/stages/0", "/evaluate",  "/attention/retained/1"};
  int keys = 0;
  for (const std::string& group : groups) {
    const auto object = json[nlohmann::ordered_json::json_pointer(group)];
    for (const auto& [key, value] : object.items()) {
      const auto pointer = nlohmann::ordered_json::json_pointer(group);
      const std::string error = ErrorOf(Broken([&](auto& j) { j[pointer].erase(key); }));
      EXPECT_NE(error.find(key + " is missing"), std::string::npos) << error;
      ++keys;
    }
    const auto pointer = nlohmann::ordered_json::json_pointer(group);
    const std::string error = ErrorOf(Broken([&](auto& j) { j[pointer]["frob"] = 1; }));
    EXPECT_NE(error.find("frob is not known"), std::string::npos) << error;
  }
  EXPECT_GT(keys, 85);
}

TEST(Plan, EachBadValueIsNamedWithItsPath) {
  using J = nlohmann::ordered_json;
  const std::vector<std::pair<std::function<void(J&)>, std::string>> cases = {
      {[](J& j) { j["version"] = 2; }, "version is 2; must be in [1, 1]"},
      {[](J& j) { j["epoch"] = 0; }, "epoch is 0; must be in [1, "},
      {[](J& j) { j["epoch"] = "3"; }, "epoch is \"3\"; must be a whole number"},
      {[](J& j) { j["epoch"] = 1.5; }, "epoch is 1.5; must be a whole number"},
      {[](J& j) { j["seed"] = -1; }, "seed is -1; must be a whole number, not negative"},
      {[](J& j) { j["model"] = "m"; }, "model is \"m\"; must be an absolute path"},
      {[](J& j) { j["job_uid"] = ""; }, "job_uid is empty"},
      {[](J& j) { j["ranks"] = 18446744073709551615u; }, "ranks is 18446744073709551615"},
      {[](J& j) { j["attention"] = 5; }, "attention is 5; must be an object"},
      {[](J& j) { j["attention"]["feature_map_kind"] = "tanh"; }, "must be one of hedgehog"},
      {[](J& j) { j["attention"]["mixing_initial"] = 0; }, "attention.mixing_initial is 0.0"},
      {[](J& j) { j["stages"] = "x"; }, "stages is \"x\"; must be a list"},
      {[](J& j) { j["stages"] = J(std::vector<int>(65)); }, "stages has 65 items"},
      {[](J& j) { j["stages"][0]["learning_rate"] = nullptr; }, "stages[0].learning_rate is null"},
      {[](J& j) { j["stages"][0]["batch_size"] = 3; }, "must be a multiple of ranks"},
      {[](J& j) { j["stages"][1]["lora_targets"][1] = "q_proj"; }, "for the second time"},
      {[](J& j) { j["stages"][1]["lora_targets"] = J::array(); }, "nothing would train"},
      {[](J& j) { j["stages"][1]["ssd_schedule"][0] = 1.5; }, "ssd_schedule[0] is 1.5"},
      {[](J& j) { j["stages"][1]["ssd_schedule"][0] = "a"; }, "ssd_schedule[0] is \"a\""},
      {[](J& j) { j["stages"][1]["ssd_window_schedule"][0] = 65; }, "holds 65; must be at most"},
      {[](J& j) { j["stages"][1]["ssd_window_schedule"][0] = 0; }, "ssd_window_schedule[0] is 0"},
      {[](J& j) { j["stages"][1]["mode"] = "window_only"; }, "only hybrid has a window to change"},
      {[](J& j) { j["attention"]["retain_auto"] = 1; }, "retain_auto is 1 beside"},
      {[](J& j) { j["attention"]["retained"][0]["layer"] = -1; }, "retained[0].layer is -1"},
      {[](J& j) { j["base_dtype"] = "bfloat16"; }, "base_dtype is bfloat16; that needs device"},
      {[](J& j) { j["converted"] = "/c"; }, "converted is given beside stages"},
      {[](J& j) { j["evaluate"]["passkey"] = 1; }, "evaluate.passkey is 1; must be true or false"},
  };
  for (const auto& [change, wanted] : cases) {
    const std::string error = ErrorOf(Broken(change));
    EXPECT_NE(error.find(wanted), std::string::npos) << "wanted: " << wanted << "\ngot: " << error;
  }
  for (const char* text : {"", "{", "[]", "null", "{\"a\":"}) ErrorOf(text);
}

TEST(Plan, AllViolationsComeAtOnce) {
  const std::string error = ErrorOf(Broken([](auto& j) {
    j["epoch"] = 0;
    j["data"].erase("tokens");
    j["surprise"] = true;
  }));
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 2) << error;
}

}  // namespace
}  // namespace tandem
