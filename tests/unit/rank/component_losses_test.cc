// What early stop watches: the evaluation's sequences, targets and losses, in the form that trains.
#include "worker/rank/component_losses.h"

#include <gtest/gtest.h>

#include "tests/unit/evaluate/thread_ranks.h"
#include "tests/unit/evaluate/tiny_conversion.h"
#include "worker/evaluate/evaluate.h"

namespace tandem {
namespace {

class ComponentLossesTest : public TinyConversion {
 protected:
  ComponentLossesTest() { plan_.evaluate.sequences = stage_.stop_sequences = 10; }
  // The last 12 tokens of odd chunks are labels.
  void WriteMask() {
    std::vector<std::vector<uint16_t>> masks;
    for (int64_t i = 0; i < text_->num_documents(); ++i) {
      masks.emplace_back();
      for (int64_t t = text_->DocumentBegin(i); t < text_->DocumentBegin(i + 1); ++t) {
        masks.back().push_back(t / 32 % 2 == 1 && t % 32 >= 20 ? 1 : 0);
      }
    }
    ASSERT_TRUE(WriteShard(folder_.File("validation.mask"), MakeShard(masks)).ok());
  }
  ComponentLosses Measure(Collective& collective) {
    const auto text = WatchedText::Open(plan_, stage_).value();
    return MeasureComponents(plan_, *model_, *parameters_, *text, collective);
  }
  void ExpectTheEvaluations(const ComponentLosses& losses) {
    const auto figures =
        Evaluate({plan_, *model_, *parameters_, *text_}, *solo_, nullptr).value().components;
    EXPECT_DOUBLE_EQ(losses.hybrid, figures.at("hybrid").loss);
    EXPECT_DOUBLE_EQ(losses.window_only, figures.at("window_only").loss);
    EXPECT_DOUBLE_EQ(losses.linear_only, figures.at("linear_only").loss);
  }

  StagePlan stage_;
  std::unique_ptr<Collective> solo_ = MakeSoloCollective();
};

TEST_F(ComponentLossesTest, AreTheEvaluations) {
  ExpectTheEvaluations(Measure(*solo_));
}

// Prompts of instruction data were watched too, though nothing is trained on them.
TEST_F(ComponentLossesTest, OfInstructionsCountLabelsAlone) {
  const double of_all = Measure(*solo_).hybrid;
  WriteMask();
  const ComponentLosses losses = Measure(*solo_);
  EXPECT_GT(std::abs(losses.hybrid - of_all), 1e-3);
  ExpectTheEvaluations(losses);
}

TEST_F(ComponentLossesTest, WhatCountsInUseAloneIsOff) {
  const double plain = Measure(*solo_).hybrid;
  plan_.attention.window_gain = 10;
  EXPECT_EQ(Measure(*solo_).hybrid, plain);
  plan_.attention.window_gain = 1;
  plan_.attention.cache_size = 4;
  EXPECT_EQ(Measure(*solo_).hybrid, plain);
  plan_.attention.cache_size = 0;
  plan_.attention.mixing_kind = "mass";
  EXPECT_EQ(Measure(*solo_).hybrid, plain);
}

TEST_F(ComponentLossesTest, AnyNumberOfRanksGivesTheSameBits) {
  const ComponentLosses alone = Measure(*solo_);
  OnRanks(3, [&](Collective& collective) {
    const ComponentLosses together = Measure(collective);
    EXPECT_EQ(together.hybrid, alone.hybrid) << "rank " << collective.rank();
    EXPECT_EQ(together.linear_only, alone.linear_only) << "rank " << collective.rank();
  });
}

TEST_F(ComponentLossesTest, TextWithoutATargetIsRefused) {
  plan_.data.sequence_length = 4000;
  const auto text = WatchedText::Open(plan_, stage_);
  ASSERT_FALSE(text.ok());
  EXPECT_NE(text.status().message().find("give more validation text"), std::string::npos);
}

}  // namespace
}  // namespace tandem
