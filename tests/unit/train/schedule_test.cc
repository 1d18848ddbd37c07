#include "worker/train/schedule.h"

#include <gtest/gtest.h>

#include "worker/train/window_dropout.h"

namespace tandem {
namespace {

TEST(LearningRateSchedule, WarmsUpThenFallsToZeroAsACosine) {
  const LearningRateSchedule schedule{2.0, 4, 12, false};
  EXPECT_DOUBLE_EQ(schedule.At(0), 0.5);
  EXPECT_DOUBLE_EQ(schedule.At(3), 2.0);
  EXPECT_DOUBLE_EQ(schedule.At(4), 2.0);
  EXPECT_DOUBLE_EQ(schedule.At(8), 1.0);
  EXPECT_GT(schedule.At(11), 0.0);
  EXPECT_NEAR(schedule.At(12), 0.0, 1e-15);
}

TEST(LearningRateSchedule, WithoutWarmUpStartsAtThePeak) {
  EXPECT_DOUBLE_EQ((LearningRateSchedule{3.0, 0, 10, false}).At(0), 3.0);
  EXPECT_DOUBLE_EQ((LearningRateSchedule{3.0, 5, 10, true}).At(9), 3.0);
}

// A warm-up longer than the stage is cut off by the stage's end, not divided by zero.
TEST(LearningRateSchedule, WarmUpMayOutlastTheStage) {
  EXPECT_DOUBLE_EQ((LearningRateSchedule{1.0, 30, 10, false}).At(9), 1.0 / 3.0);
}

TEST(WindowDropoutAt, SplitsTheStageEvenly) {
  const std::vector<double> schedule = {0.9, 0.75, 0.5};
  EXPECT_EQ(WindowDropoutAt(schedule, 0, 9), 0.9);
  EXPECT_EQ(WindowDropoutAt(schedule, 2, 9), 0.9);
  EXPECT_EQ(WindowDropoutAt(schedule, 3, 9), 0.75);
  EXPECT_EQ(WindowDropoutAt(schedule, 8, 9), 0.5);
  EXPECT_EQ(WindowDropoutAt(schedule, 9, 9), 0.5);
  EXPECT_EQ(WindowDropoutAt({}, 3, 9), 0.0);
}

double ShareDropped(const WindowDropout& dropout, int64_t steps, int64_t layers, int64_t rows) {
  int64_t dropped = 0;
  for (int64_t s = 0; s < steps; ++s) {
    for (int64_t b = 0; b < rows; ++b) {
      for (int64_t l = 0; l < layers; ++l) dropped += dropout.IsDropped(s, b, l) ? 1 : 0;
    }
  }
  return static_cast<double>(dropped) / static_cast<double>(steps * layers * rows);
}

TEST(WindowDropout, DrawsOftenEnoughAtEachGranularity) {
  for (const char* granularity : {"micro_batch", "layer", "row"}) {
    const WindowDropout dropout(3, 1, {{0.75}, granularity, 4000});
    EXPECT_NEAR(ShareDropped(dropout, 4000, 3, 2), 0.75, 0.02) << granularity;
  }
}

TEST(WindowDropout, GranularitySaysWhoSharesADraw) {
  const WindowDropout whole(3, 1, {{0.5}, "micro_batch", 1000});
  const WindowDropout layer(3, 1, {{0.5}, "layer", 1000});
  const WindowDropout row(3, 1, {{0.5}, "row", 1000});
  int64_t layers_differ = 0, rows_differ = 0;
  for (int64_t s = 0; s < 1000; ++s) {
    EXPECT_EQ(whole.IsDropped(s, 0, 0), whole.IsDropped(s, 5, 3));
    EXPECT_EQ(layer.IsDropped(s, 0, 1), layer.IsDropped(s, 5, 1));
    EXPECT_EQ(row.IsDropped(s, 2, 0), row.IsDropped(s, 2, 3));
    layers_differ += layer.IsDropped(s, 0, 0) != layer.IsDropped(s, 0, 1) ? 1 : 0;
    rows_differ += row.IsDropped(s, 0, 0) != row.IsDropped(s, 1, 0) ? 1 : 0;
  }
  EXPECT_GT(layers_differ, 400);
  EXPECT_GT(rows_differ, 400);
}

TEST(WindowDropout, SeedsAndStagesDrawApart) {
  const WindowDropout a(3, 1, {{0.5}, "micro_batch", 1000}), b(4, 1, {{0.5}, "micro_batch", 1000}),
      c(3, 2, {{0.5}, "micro_batch", 1000});
  int64_t ab = 0, ac = 0;
  for (int64_t s = 0; s < 1000; ++s) {
    ab += a.IsDropped(s, 0, 0) != b.IsDropped(s, 0, 0) ? 1 : 0;
    ac += a.IsDropped(s, 0, 0) != c.IsDropped(s, 0, 0) ? 1 : 0;
  }
  EXPECT_GT(ab, 400);
  EXPECT_GT(ac, 400);
}

}  // namespace
}  // namespace tandem
