#include "worker/evaluate/long_range.h"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/evaluate/tiny_conversion.h"

namespace tandem {
namespace {

using nlohmann::json;

class LongRangeTest : public TinyConversion {
 protected:
  void SetUp() override {
    TinyConversion::SetUp();
    plan_.attention.window_size = 4;  // two layers see 6 tokens back
  }

  // 24 tokens of text; from token 20 on the base's own guesses: right by construction in mode
  // softmax.
  std::vector<int64_t> Answered() const {
    at::Tensor ids = at::empty({1, 24}, at::kLong);
    int64_t* values = ids.mutable_data_ptr<int64_t>();
    text_->Read(0, 24, values);
    EvaluationOptions options;
    options.mode = ComponentMode::kSoftmax;
    options.predictions = true;
    for (int64_t at = 20; at < 24; ++at) {
      const at::Tensor guess = EvaluateSequences(*model_, *parameters_, ids, options).predicted_BT;
      values[at] = guess.const_data_ptr<int64_t>()[at - 1];
    }
    return {values, values + 24};
  }
  LongRangeFigures Measure(const std::vector<LongRangePrompt>& prompts) {
    const auto solo = MakeSoloCollective();
    const LongRangeMeasurement measurement(prompts, plan_, model_->config().num_layers);
    int64_t groups = 0;
    const LongRangeFigures figures = measurement.Measure(Model(), *solo, [&groups] { ++groups; });
    EXPECT_EQ(groups, measurement.GroupsOf(0, 1));
    return figures;
  }
  static std::vector<int64_t> Spoilt(std::vector<int64_t> ids, size_t at) {
    ids[at] = (ids[at] + 1) % kTinyVocab;
    return ids;
  }
};

TEST_F(LongRangeTest, CountsWholeAnswersByDistance) {
  const std::vector<int64_t> right = Answered();
  std::vector<LongRangePrompt> prompts(5, {"passkey", 7, right, {{20, 2, 7}}});
  prompts[3].amount = prompts[3].answers[0].distance = 3;
  prompts[4].ids = Spoilt(right, 21);  // the second token of the answer
  const LongRangeFigures figures = Measure(prompts);
  ASSERT_EQ(figures.rows.size(), 2u);
  EXPECT_EQ(figures.rows[0].amount, 3);
  EXPECT_EQ(figures.rows[0].accuracy.at("softmax"), 1);
  EXPECT_EQ(figures.rows[1].prompts, 4);
  EXPECT_DOUBLE_EQ(figures.rows[1].accuracy.at("softmax"), 0.75);
  EXPECT_EQ(figures.rows[1].accuracy.size(), 4u);
}

// Several answers in one prompt, each with its own distance: one counts as reached by the windows.
TEST_F(LongRangeTest, EachAnswerOfAPromptCounts) {
  const std::vector<int64_t> right = Answered();
  const std::vector<LongRangePrompt> prompts = {
      {"recall", 2, Spoilt(right, 23), {{20, 1, 3}, {22, 1, 9}, {23, 1, 9}}},
      {"key_value", 5, right, {{20, 4, 9}}}};
  const LongRangeFigures figures = Measure(prompts);
  ASSERT_EQ(figures.rows.size(), 2u);
  EXPECT_EQ(figures.rows[0].kind, "recall");
  EXPECT_EQ(figures.rows[0].answers, 3);
  EXPECT_DOUBLE_EQ(figures.rows[0].accuracy.at("softmax"), 2.0 / 3);
  EXPECT_EQ(figures.rows[1].accuracy.at("softmax"), 1);
  EXPECT_NE(figures.recall.words.find("recall 2"), std::string::npos) << figures.recall.words;
  EXPECT_EQ(figures.recall.words.find("key_value"), std::string::npos) << figures.recall.words;
}

// The base finds all; the random conversion finds nothing: recall 0. Served as the base would be,
// everything.
TEST_F(LongRangeTest, RecallIsAShareOfTheBases) {
  const std::vector<LongRangePrompt> prompts(3, {"passkey", 9, Answered(), {{20, 4, 9}}});
  EXPECT_EQ(*Measure(prompts).recall.value, 0) << Measure(prompts).recall.words;
  plan_.served_mode = "softmax";
  EXPECT_EQ(*Measure(prompts).recall.value, 1);
}

TEST_F(LongRangeTest, WithinTheWindowsNothingIsRecalled) {
  const std::vector<LongRangePrompt> near(3, {"passkey", 6, Answered(), {{20, 4, 6}}});
  EXPECT_FALSE(Measure(near).recall.value.has_value());
  EXPECT_NE(Measure(near).recall.words.find("not measured"), std::string::npos);
  const std::vector<LongRangePrompt> wrong(3, {"passkey", 9, Spoilt(Answered(), 20), {{20, 4, 9}}});
  EXPECT_FALSE(Measure(wrong).recall.value.has_value());
  EXPECT_NE(Measure(wrong).recall.words.find("base itself"), std::string::npos);
}

TEST(WindowReach, StacksTheLayers) {
  AttentionPlan attention;
  attention.window_size = 64;
  EXPECT_EQ(WindowReach(attention, 6), 378);
  EXPECT_EQ(WindowReach(attention, 32), 2016);
  attention.window_kind = "terraced";
  EXPECT_EQ(WindowReach(attention, 6), 762);
}

TEST(FirstLinearRow, IsTheFirstWithKeysOutsideTheWindow) {
  AttentionPlan attention;
  attention.window_size = 16;
  EXPECT_EQ(FirstLinearRow(attention, 100), 16);
  attention.window_sinks = 4;
  EXPECT_EQ(FirstLinearRow(attention, 100), 20);
  attention.window_kind = "terraced";
  EXPECT_EQ(FirstLinearRow(attention, 100), 32);
  attention.window_sinks = 16;  // the whole first block
  EXPECT_EQ(FirstLinearRow(attention, 100), 48);
  attention.window_align_end = true;  // blocks of 16 end at 100: the first has 4 tokens
  EXPECT_EQ(FirstLinearRow(attention, 96), 48);
  EXPECT_EQ(FirstLinearRow(attention, 100), 36);
  attention.window_sinks = 4;
  EXPECT_EQ(FirstLinearRow(attention, 100), 36) << "the sinks are the first block";
  attention.window_sinks = 3;
  EXPECT_EQ(FirstLinearRow(attention, 100), 20);
  attention.compat = "lolcats";
  EXPECT_EQ(FirstLinearRow(attention, 17), 33) << "none";
  EXPECT_EQ(FirstLinearRow(attention, 16), 0);
  attention.linear_span = "all";
  EXPECT_EQ(FirstLinearRow(attention, 100), 0);
}

TEST(LongRangeFile, ReadsBothFiles) {
  TestFolder folder;
  Plan plan;
  plan.data.tokens = folder.path();
  plan.evaluate.long_range = true;
  const json good = {{"version", 1},
                     {"prompts",
                      {{{"kind", "needle"},
                        {"length", 4},
                        {"depth", 0.5},
                        {"ids", {1, 2, 3, 4}},
                        {"answers", {{{"start", 3}, {"length", 1}, {"distance", 2}}}}},
                       {{"kind", "recall"},
                        {"length", 3},
                        {"facts", 8},
                        {"ids", {1, 2, 3}},
                        {"answers", {{{"start", 1}, {"length", 2}, {"distance", 0}}}}}}}};
  const auto read = [&folder, &plan](const json& root) {
    EXPECT_TRUE(WriteFileDurably(folder.File("long_range.json"), root.dump()).ok());
    return ReadLongRange(plan, 5);
  };
  EXPECT_TRUE(ReadLongRange(plan, 5).value().empty());
  const auto prompts = read(good).value();
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].amount, 2);
  EXPECT_EQ(prompts[1].amount, 8);
  EXPECT_EQ(prompts[1].answers.at(0).length, 2);

  const auto fault = [&](const char* place, const json& value) {
    json bad = good;
    bad[json::json_pointer(place)] = value;
    const auto result = read(bad);
    return result.ok() ? std::string("none") : result.status().message();
  };
  EXPECT_NE(fault("/version", 2).find("version 1"), std::string::npos);
  EXPECT_NE(fault("/prompts/1/kind", "riddle").find("prompts[1] has the kind \"riddle\""),
            std::string::npos);
  EXPECT_NE(fault("/prompts/0/ids/2", 5).find("the id 5; must be in [0, 5)"), std::string::npos);
  EXPECT_NE(fault("/prompts/0/answers/0/start", 4).find("outside ids 1 ... 3"), std::string::npos);
  EXPECT_NE(fault("/prompts/1/facts", "x").find("facts"), std::string::npos);
  EXPECT_NE(fault("/prompts/1/answers", json::array()).find("no answers"), std::string::npos);

  EXPECT_TRUE(WriteFileDurably(folder.File("passkey.json"),
                               R"({"length": 3, "prompts": [{"distance": 1, "ids": [1, 2, 3],
                                   "answer_start": 2, "answer_length": 1}]})")
                  .ok());
  EXPECT_EQ(read(good).value().front().kind, "passkey");
  plan.evaluate.passkey = false;
  EXPECT_EQ(ReadLongRange(plan, 5).value().front().kind, "needle");
}

}  // namespace
}  // namespace tandem
