#include "worker/evaluate/suite_metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

SuiteItem Choice(int64_t answer, std::vector<double> lengths, const std::string& group = "") {
  SuiteItem item;
  item.starts.assign(lengths.size(), 1);
  item.lengths = std::move(lengths);
  item.answer = answer;
  item.group = group;
  return item;
}

double Also(const SuiteScore& score, const std::string& name) {
  for (const NamedValue& value : score.also) {
    if (value.name == name) return value.value;
  }
  ADD_FAILURE() << "no " << name;
  return NAN;
}

TEST(SuiteMetrics, AccTakesTheMostProbableChoice) {
  Suite suite{"piqa", "acc", {Choice(0, {3, 9}), Choice(0, {3, 9}), Choice(1, {2, 4})}};
  // Right, wrong; and a tie goes to the first, which is wrong here.
  const SuiteScore score = ScoreSuite(
      suite, {{-1, false}, {-2, false}, {-2, false}, {-1, false}, {-3, false}, {-3, false}});
  EXPECT_DOUBLE_EQ(score.value, 1.0 / 3);
  // Sample variance (4 + 1 + 1) / 9 / 2 = 1 / 3, over 3.
  EXPECT_DOUBLE_EQ(score.standard_error, 1.0 / 3);
}

TEST(SuiteMetrics, AccNormDividesByCharacters) {
  Suite suite{"hellaswag", "acc_norm", {Choice(1, {3, 9})}};
  // -2 < -3 in all, but -3/9 > -2/3 per character.
  const SuiteScore score = ScoreSuite(suite, {{-2, false}, {-3, false}});
  EXPECT_EQ(score.value, 1);
  EXPECT_EQ(Also(score, "acc"), 0);
  EXPECT_EQ(Also(score, "acc_norm"), 1);
  suite.metric = "acc";
  EXPECT_EQ(ScoreSuite(suite, {{-2, false}, {-3, false}}).value, 0);
}

// MMLU: subjects of different size have one voice each.
TEST(SuiteMetrics, GroupsAreAveraged) {
  Suite suite{"mmlu",
              "acc",
              {Choice(0, {1, 1}, "law"), Choice(0, {1, 1}, "law"), Choice(0, {1, 1}, "law"),
               Choice(0, {1, 1}, "art")}};
  std::vector<ContinuationScore> scores;
  for (int item = 0; item < 4; ++item) {
    scores.push_back({item == 3 ? -1.0 : -5.0, false});
    scores.push_back({-2, false});
  }
  const SuiteScore score = ScoreSuite(suite, scores);
  EXPECT_DOUBLE_EQ(score.value, 0.5);
  EXPECT_DOUBLE_EQ(score.standard_error, 0);
}

TEST(SuiteMetrics, LambadaIsGreedyAccuracyAndPerplexity) {
  Suite suite{"lambada", "lambada", {Choice(0, {1}), Choice(0, {1})}};
  const SuiteScore score = ScoreSuite(suite, {{-1, true}, {-3, false}});
  EXPECT_DOUBLE_EQ(score.value, 0.5);
  EXPECT_DOUBLE_EQ(Also(score, "perplexity"), std::exp(2));
  suite.metric = "exact";
  EXPECT_DOUBLE_EQ(ScoreSuite(suite, {{-1, true}, {-3, false}}).value, 0.5);
}

TEST(SuiteMetrics, PerplexityIsOverWords) {
  SuiteItem first = Choice(0, {1, 1}), second = Choice(0, {1});
  first.words = 4;
  first.bytes = 20;
  second.words = 2;
  second.bytes = 10;
  Suite suite{"wiki", "perplexity", {first, second}};
  const SuiteScore score = ScoreSuite(suite, {{-3, false}, {-5, false}, {-4, false}});
  EXPECT_DOUBLE_EQ(score.value, std::exp(12.0 / 6));
  EXPECT_DOUBLE_EQ(Also(score, "byte_perplexity"), std::exp(12.0 / 30));
  EXPECT_DOUBLE_EQ(Also(score, "bits_per_byte"), 12.0 / 30 / std::log(2));
  // Both documents have the same loss per word: nothing varies.
  EXPECT_DOUBLE_EQ(score.standard_error, 0);
}

// A model that gives NaN answers nothing right.
TEST(SuiteMetrics, NotFiniteIsNotAScore) {
  Suite suite{"piqa", "acc", {Choice(0, {1, 1}), Choice(0, {1, 1})}};
  EXPECT_TRUE(
      std::isnan(ScoreSuite(suite, {{NAN, false}, {-1, false}, {-1, false}, {-2, false}}).value));
  Suite words{"lambada", "lambada", {Choice(0, {1})}};
  EXPECT_TRUE(std::isnan(ScoreSuite(words, {{NAN, true}}).value));
}

}  // namespace
}  // namespace tandem
