#include "worker/evaluate/verdict.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tandem {
namespace {

// The lab's SSD conversion of base-22m (method.md §9): K = .83, balanced.
VerdictFigures Balanced() {
  VerdictFigures figures;
  figures.losses = {{"softmax", 2.699},     {"hybrid", 2.783},     {"window_only", 2.838},
                    {"linear_only", 3.301}, {"sinks_only", 6.133}, {"none", 7.420}};
  figures.linear_delta_low = 0.050;
  figures.linear_delta_high = 0.060;
  figures.state_swap_loss = 2.783 + 0.030;
  return figures;
}

TEST(Verdict, BalancedConversion) {
  const Verdict verdict = Judge(Balanced());
  EXPECT_EQ(verdict.verdict, "balanced") << verdict.reason;
  EXPECT_NEAR(*verdict.linear_capability, (6.133 - 3.301) / (6.133 - 2.699), 1e-12);
  EXPECT_NEAR(*verdict.recovered.at("softmax"), 1, 1e-12);
  EXPECT_NEAR(*verdict.recovered.at("sinks_only"), 0, 1e-12);
  EXPECT_NEAR(*verdict.beyond_window, 0.055 / 0.139, 1e-9);
  EXPECT_NEAR(verdict.linear_delta, 0.055, 1e-12);
  EXPECT_NEAR(verdict.state_swap_delta, 0.030, 1e-12);
}

TEST(Verdict, LabConversions) {
  VerdictFigures lolcats = Balanced();  // K = .39
  lolcats.losses = {{"softmax", 2.699},     {"hybrid", 2.718},     {"window_only", 2.787},
                    {"linear_only", 4.855}, {"sinks_only", 6.255}, {"none", 7.420}};
  lolcats.state_swap_loss = 2.8;
  EXPECT_EQ(Judge(lolcats).verdict, "collapsed");
  EXPECT_NEAR(*Judge(lolcats).linear_capability, 0.39, 0.005);
  EXPECT_NE(Judge(lolcats).reason.find("bypassed"), std::string::npos);
  VerdictFigures hedgecats = lolcats;  // K = .68
  hedgecats.losses["linear_only"] = 3.822;
  EXPECT_EQ(Judge(hedgecats).verdict, "leaning");
  EXPECT_NE(Judge(hedgecats).reason.find("leans on the window"), std::string::npos);
}

// It was said to be bypassed by a window that did no work either.
TEST(Verdict, ADivergedConversionIsCalledLostAndNotBypassed) {
  VerdictFigures figures = Balanced();
  for (const char* mode : {"hybrid", "window_only", "linear_only"}) figures.losses[mode] = 9.88;
  EXPECT_EQ(Judge(figures).verdict, "collapsed");
  EXPECT_NE(Judge(figures).reason.find("lower the learning rates"), std::string::npos);
  EXPECT_EQ(Judge(figures).reason.find("bypassed"), std::string::npos);
}

TEST(Verdict, LeansOnTheLinearBranch) {
  VerdictFigures figures = Balanced();
  figures.losses["window_only"] = 4.5;
  figures.state_swap_loss = 4;
  EXPECT_EQ(Judge(figures).verdict, "leaning");
  EXPECT_NE(Judge(figures).reason.find("leans on the linear branch"), std::string::npos);
}

TEST(Verdict, IntervalThatReachesZeroIsCollapsed) {
  VerdictFigures figures = Balanced();
  figures.linear_delta_low = 0;
  EXPECT_EQ(Judge(figures).verdict, "collapsed");
  EXPECT_NE(Judge(figures).reason.find("is not above 0"), std::string::npos);
}

TEST(Verdict, HybridWorseThanItsWindowIsCollapsed) {
  VerdictFigures figures = Balanced();
  figures.losses["hybrid"] = 2.9;
  figures.linear_delta_low = -0.07;
  figures.linear_delta_high = -0.05;
  figures.state_swap_loss = 3;
  const Verdict verdict = Judge(figures);
  EXPECT_EQ(verdict.verdict, "collapsed");
  EXPECT_EQ(*verdict.beyond_window, 0);
}

TEST(Verdict, ContentFreeBranchIsCollapsed) {
  VerdictFigures figures = Balanced();
  figures.state_swap_loss = 2.783 + 0.25 * 0.055 - 1e-4;
  EXPECT_EQ(Judge(figures).verdict, "collapsed");
  EXPECT_NE(Judge(figures).reason.find("no content"), std::string::npos);
  figures.state_swap_loss = 2.783 + 0.25 * 0.055 + 1e-4;
  EXPECT_EQ(Judge(figures).verdict, "balanced");
}

TEST(Verdict, ThresholdsBelongToTheBetterSide) {
  VerdictFigures figures;
  figures.losses = {{"softmax", 0}, {"hybrid", 0.25},  {"window_only", 0.5},
                    {"none", 2},    {"sinks_only", 1}, {"linear_only", 0.25}};
  figures.linear_delta_low = figures.linear_delta_high = 0.25;
  figures.state_swap_loss = 0.5;
  EXPECT_EQ(Judge(figures).verdict, "balanced");  // K = .75, window .5
  figures.losses["linear_only"] = 0.25 + 1e-9;
  EXPECT_EQ(Judge(figures).verdict, "leaning");
  figures.losses["linear_only"] = 0.46;
  EXPECT_EQ(Judge(figures).verdict, "collapsed");
}

// A gain of a ten-thousandth of a nat in every sequence has a narrow interval above 0, and is no
// work.
TEST(Verdict, GainBelowWhatCountsIsCollapsed) {
  VerdictFigures figures = Balanced();
  figures.losses["hybrid"] = figures.losses["window_only"] - 2e-4;
  figures.linear_delta_low = 1e-4;
  figures.linear_delta_high = 3e-4;
  figures.state_swap_loss = 3;
  EXPECT_EQ(Judge(figures).verdict, "collapsed");
  EXPECT_NE(Judge(figures).reason.find("brings nothing"), std::string::npos);
}

// Training that ruins its own sinks_only stretches the scale; no context at all is the floor.
TEST(Verdict, BrokenSinksDoNotRaiseTheCapability) {
  VerdictFigures figures = Balanced();
  figures.losses["linear_only"] = 6.0;
  figures.losses["sinks_only"] = 20;
  EXPECT_GT((20 - 6.0) / (20 - 2.699), 0.75);
  const Verdict verdict = Judge(figures);
  EXPECT_NEAR(*verdict.linear_capability, (7.420 - 6.0) / (7.420 - 2.699), 1e-12);
  EXPECT_EQ(verdict.verdict, "collapsed");
}

// What cannot be measured is never called good.
TEST(Verdict, WithoutFiguresNothingIsShown) {
  for (const char* mode :
       {"softmax", "hybrid", "window_only", "linear_only", "sinks_only", "none"}) {
    for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
      VerdictFigures figures = Balanced();
      figures.losses[mode] = bad;
      EXPECT_EQ(Judge(figures).verdict, "collapsed") << mode;
      EXPECT_NE(Judge(figures).reason.find(mode), std::string::npos) << Judge(figures).reason;
      figures.losses.erase(mode);
      EXPECT_EQ(Judge(figures).verdict, "collapsed") << mode;
    }
  }
  VerdictFigures figures = Balanced();
  figures.state_swap_loss = std::nan("");
  EXPECT_EQ(Judge(figures).verdict, "collapsed");
  figures = Balanced();
  figures.linear_delta_low = std::nan("");
  EXPECT_EQ(Judge(figures).verdict, "collapsed");
  figures = Balanced();
  figures.losses["sinks_only"] = figures.losses["softmax"];
  const Verdict verdict = Judge(figures);
  EXPECT_EQ(verdict.verdict, "collapsed");
  EXPECT_FALSE(verdict.linear_capability.has_value());
}

TEST(Verdict, TextWithinTheWindowHasNoBeyond) {
  VerdictFigures figures = Balanced();
  figures.losses["window_only"] = figures.losses["softmax"];
  EXPECT_FALSE(Judge(figures).beyond_window.has_value());
}

}  // namespace
}  // namespace tandem
