// The event file, byte for byte: readers refuse a wrong checksum without a word.
// tests/e2e/test_run.py reads one back with TensorBoard itself.
#include "worker/rank/tensorboard_log.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <cstring>

#include "base/digest.h"
#include "base/files.h"
#include "worker/rank/metrics_history.h"
#include "worker/rank/metrics_log.h"

namespace tandem {
namespace {

class TensorboardLogTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "board-XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(folder_).ok()); }

  std::string Bytes(const std::string& epoch) const {
    const auto bytes =
        ReadFile(folder_ + "/artifacts/tensorboard/events.out.tfevents." + epoch + ".tandem");
    EXPECT_TRUE(bytes.ok()) << bytes.status().message();
    return bytes.ok() ? *bytes : "";
  }

  std::string folder_;
  FakeClock clock_;  // its wall time is 1,700,000,001 s
};

uint32_t Mask(const std::string& bytes) {
  const uint32_t crc = Crc32c(bytes.data(), bytes.size());
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

// The events of a file; fails where a checksum is wrong or a record is cut.
std::vector<std::string> Events(const std::string& bytes) {
  std::vector<std::string> events;
  size_t at = 0;
  while (at + 12 <= bytes.size()) {
    uint64_t size = 0;
    uint32_t crc = 0;
    std::memcpy(&size, bytes.data() + at, 8);
    std::memcpy(&crc, bytes.data() + at + 8, 4);
    EXPECT_EQ(crc, Mask(bytes.substr(at, 8)));
    events.push_back(bytes.substr(at + 12, size));
    EXPECT_EQ(events.back().size(), size);
    std::memcpy(&crc, bytes.data() + at + 12 + size, 4);
    EXPECT_EQ(crc, Mask(events.back()));
    at += 16 + size;
  }
  EXPECT_EQ(at, bytes.size());
  return events;
}

std::string Head(char step) {
  std::string head = "\x09";
  const double seconds = 1'700'000'001.0;
  head.append(reinterpret_cast<const char*>(&seconds), 8);
  return head + "\x10" + step;
}

TEST_F(TensorboardLogTest, WritesVersionSessionAndScalars) {
  auto log = TensorboardLog::Open(folder_, 3, 4, clock_);
  ASSERT_TRUE(log.ok()) << log.status().message();
  ASSERT_TRUE((*log)->Append(5, {{"a/b", 0.5}, {"nan", std::nan("")}}).ok());
  const auto events = Events(Bytes("0000000003"));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0], Head('\0') +
                           "\x1A\x0D"
                           "brain.Event:2");
  EXPECT_EQ(events[1], Head('\5') + "\x3A\x02\x08\x01") << "the session starts at the next step";
  const std::string half("\x00\x00\x00\x3F", 4);
  EXPECT_EQ(events[2], Head('\5') +
                           "\x2A\x0C\x0A\x0A\x0A\x03"
                           "a/b\x15" +
                           half);
}

TEST_F(TensorboardLogTest, AnAttemptHasAFileOfItsOwnAndTheSameBytes) {
  const auto write = [&](int64_t epoch) {
    auto log = TensorboardLog::Open(folder_, epoch, 300, clock_);
    ASSERT_TRUE(log.ok());
    ASSERT_TRUE((*log)->Append(301, {{"finetune/loss", 3.25}}).ok());
  };
  write(1);
  write(2);
  EXPECT_EQ(Bytes("0000000001"), Bytes("0000000002"));
  EXPECT_EQ(Events(Bytes("0000000001")).size(), 3u);
}

TEST_F(TensorboardLogTest, ComponentsComeFromTheReport) {
  const std::string report = folder_ + "/report.json";
  ASSERT_TRUE(WriteFileDurably(report, R"({"linear_capability": null, "components":
      {"hybrid": {"loss": 3.5, "recovered": null}, "none": 3}})")
                  .ok());
  auto log = TensorboardLog::Open(folder_, 1, 0, clock_);
  ASSERT_TRUE(log.ok());
  ASSERT_TRUE((*log)->AppendReport(9, report).ok());
  EXPECT_FALSE((*log)->AppendReport(9, report + "x").ok());
  const auto events = Events(Bytes("0000000001"));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_NE(events[2].find("component_loss/hybrid"), std::string::npos);
  EXPECT_EQ(events[2].find("recovered"), std::string::npos) << "what is not defined is left out";
}

TEST(StepScalars, TransferHasLayersAndFinetuneHasTheWindow) {
  StepReport report;
  report.loss = 2;
  report.layer_losses = {1, 3};
  const StepLine line{"attention_transfer", 0, 1, 1000, 0.5};
  EXPECT_EQ(StepScalars(MetricsLine(line, report)),
            (Scalars{{"attention_transfer/loss", 2},
                     {"attention_transfer/learning_rate", 0},
                     {"attention_transfer/tokens_per_second", 2000},
                     {"attention_transfer_layers/layer_00", 1},
                     {"attention_transfer_layers/layer_01", 3}}));
  report.layer_losses.clear();
  report.window_dropped = 0.25;
  EXPECT_EQ(StepScalars(MetricsLine({"finetune", 1, 1, 1, 1}, report)),
            (Scalars{{"finetune/loss", 2},
                     {"finetune/learning_rate", 0},
                     {"finetune/grad_norm", 0},
                     {"finetune/window_dropped", 0.25},
                     {"finetune/tokens_per_second", 1}}));
}

TEST_F(TensorboardLogTest, StepsOfAnotherJobAreACurveWithoutSpeed) {
  std::string lines;
  for (int64_t step = 1; step <= 3; ++step) lines += MetricsLine({"finetune", 1, step, 1, 1}, {});
  auto log = TensorboardLog::Open(folder_, 1, 0, clock_);
  ASSERT_TRUE(log.ok());
  ASSERT_TRUE((*log)->AppendSteps(40, MarkedAsReused(lines)).ok());
  const auto events = Events(Bytes("0000000001"));
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[4].substr(0, 11), Head(43));
  EXPECT_NE(events[4].find("finetune/loss"), std::string::npos);
  EXPECT_EQ(events[4].find("tokens_per_second"), std::string::npos) << "nobody spent the seconds";
}

}  // namespace
}  // namespace tandem
