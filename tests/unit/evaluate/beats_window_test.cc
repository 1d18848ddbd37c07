#include "worker/evaluate/beats_window.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

using nlohmann::json;

// 40 sequences: the base, and others above it by a margin that wavers by a few thousandths,
// with a period of their own.
std::vector<double> Losses(double above_base, int period = 4) {
  std::vector<double> losses;
  for (int i = 0; i < 40; ++i) {
    const double waver = 0.004 * (i % period) - 0.002 * (period - 1);
    losses.push_back(2.5 + 0.02 * i + above_base + waver);
  }
  return losses;
}

std::vector<double> Base() {
  std::vector<double> losses;
  for (int i = 0; i < 40; ++i) losses.push_back(2.5 + 0.02 * i);
  return losses;
}

class BeatsWindowTest : public testing::Test {
 protected:
  BeatsWindowTest() {
    losses_.per_sequence = {{"softmax", Base()},
                            {"hybrid", Losses(0.05)},
                            {"linear_only", Losses(0.6)},
                            {"training_free", Losses(0.13, 5)}};
    losses_.targets.assign(40, 1023);
    losses_.sequence_length = 1024;
    losses_.validation_sha256 = "abc";
    control_ = {{"version", 1},
                {"served_mode", "window_only"},
                {"sequence_length", 1024},
                {"validation_sha256", "abc"},
                {"cost", {{"tokens", 4096}}},
                {"per_sequence", {{"softmax", Base()}, {"window_only", Losses(0.09, 5)}}}};
  }
  BeatsWindow Compare(const std::string& served = "hybrid") {
    const std::string path = control_.is_null() ? "" : folder_.File("report.json");
    if (!path.empty()) {
      EXPECT_TRUE(WriteFileDurably(path, control_.dump()).ok());
    }
    return CompareWithWindows({losses_, served, path, 4096, 500, 7});
  }
  void ExpectNotPaired(const std::string& words) {
    const BeatsWindow beats = Compare();
    EXPECT_FALSE(beats.trained.has_value()) << words;
    EXPECT_EQ(beats.value, std::nullopt) << words;
    EXPECT_NE(beats.words.find(words), std::string::npos) << beats.words;
  }

  TestFolder folder_;
  PairedLosses losses_;
  json control_;
};

TEST_F(BeatsWindowTest, BetterThanBothIsTrue) {
  const BeatsWindow beats = Compare();
  EXPECT_EQ(beats.value, true) << beats.words;
  EXPECT_NEAR(beats.training_free->delta, 0.08, 1e-9);
  EXPECT_NEAR(beats.trained->delta, 0.04, 1e-9);
  EXPECT_LT(beats.trained->low, beats.trained->delta);
  EXPECT_GT(beats.trained->high, beats.trained->delta);
}

TEST_F(BeatsWindowTest, OneControlIsNotEnough) {
  control_ = nullptr;
  const BeatsWindow beats = Compare();
  EXPECT_EQ(beats.value, std::nullopt);
  EXPECT_NE(beats.words.find("was not given"), std::string::npos) << beats.words;
  losses_.per_sequence["training_free"] = Losses(0.055, 5);
  EXPECT_EQ(Compare().value, false);  // half a hundredth better: not by the margin
}

// 0.012 better on average, but by nothing in half of the sequences: the interval decides.
TEST_F(BeatsWindowTest, TheWholeIntervalMustLieAboveTheMargin) {
  auto& window = control_["per_sequence"]["window_only"];
  for (size_t i = 0; i < window.size(); ++i) {
    window[i] = losses_.per_sequence["hybrid"][i] + (i % 2 == 0 ? 0.024 : 0);
  }
  const BeatsWindow beats = Compare();
  EXPECT_EQ(beats.value, false) << beats.words;
  EXPECT_GT(beats.trained->delta, kBeatsWindowMargin);
  EXPECT_LT(beats.trained->low, kBeatsWindowMargin);
}

TEST_F(BeatsWindowTest, TheServedModeIsCompared) {
  EXPECT_EQ(Compare("linear_only").value, false);
  const BeatsWindow control = Compare("window_only");
  EXPECT_EQ(control.value, std::nullopt);
  EXPECT_FALSE(control.training_free.has_value());
}

TEST_F(BeatsWindowTest, WhatCannotBePairedIsSaid) {
  const json good = control_;
  control_["sequence_length"] = 512;
  ExpectNotPaired("512 tokens, ours 1024");
  control_ = good;
  control_["validation_sha256"] = "xyz";
  ExpectNotPaired("another one (validation_sha256)");
  control_ = good;
  control_["per_sequence"]["softmax"].erase(0);
  control_["per_sequence"]["window_only"].erase(0);
  ExpectNotPaired("39 sequences, this job 40");
  control_ = good;
  control_["per_sequence"]["softmax"][3] = 2.9;
  ExpectNotPaired("another base or other tokens");
  control_ = good;
  control_["per_sequence"]["softmax"][3] = nullptr;
  ExpectNotPaired("sequence 3");
  control_ = good;
  control_["served_mode"] = "hybrid";
  ExpectNotPaired("served in mode \"hybrid\"");
  control_["served_mode"] = 5;
  ExpectNotPaired("served in mode \"\"");
  control_ = good;
  control_.erase("per_sequence");
  ExpectNotPaired("no losses per sequence");
  control_ = good;
  control_["version"] = 2;
  ExpectNotPaired("not a report.json of version 1");
  control_ = json::array();
  ExpectNotPaired("is not a JSON object");
}

// Better in the sequences of few labels, worse in the one that has nearly all.
TEST_F(BeatsWindowTest, TokensAreCompared) {
  EXPECT_EQ(Compare().value, true);
  losses_.per_sequence["hybrid"][7] += 1;
  EXPECT_GT(Compare().training_free->delta, 0.05);
  losses_.targets[7] = 1e6;
  EXPECT_LT(Compare().training_free->delta, -0.5);
  EXPECT_EQ(Compare().value, false);
}

TEST_F(BeatsWindowTest, NotFiniteIsNotBetter) {
  losses_.per_sequence["hybrid"][5] = NAN;
  EXPECT_EQ(Compare().value, false);
}

TEST_F(BeatsWindowTest, AnotherBudgetIsSaid) {
  control_["cost"]["tokens"] = 8192;
  EXPECT_NE(Compare().words.find("trained on 8192 tokens, this conversion on 4096"),
            std::string::npos)
      << Compare().words;
}

}  // namespace
}  // namespace tandem
