#include "worker/plan/messages.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tandem {
namespace {

RankMessage Decoded(std::string line) {
  EXPECT_EQ(line.back(), '\n');
  line.pop_back();
  EXPECT_EQ(line.find('\n'), std::string::npos);
  Result<RankMessage> message = DecodeRankMessage(line);
  EXPECT_TRUE(message.ok()) << message.status().ToString() << " in " << line;
  return message.ok() ? *message : RankMessage{};
}

TEST(Messages, RankMessagesSurviveTheRoundTrip) {
  RankMessage progress;
  progress.type = "progress";
  progress.epoch = 7;
  progress.rank = 1;
  progress.seq = 9;
  progress.stage = "finetune";
  progress.stage_index = 1;
  progress.step = 4;
  progress.steps = 10;
  progress.metrics = {{"loss", 0.1}, {"grad_norm", std::nan("")}};
  const RankMessage read = Decoded(EncodeRankMessage(progress));
  EXPECT_EQ(read.stage, "finetune");
  EXPECT_EQ(read.step, 4);
  EXPECT_EQ(read.epoch, 7);
  EXPECT_EQ(read.rank, 1);
  EXPECT_EQ(read.seq, 9);
  EXPECT_EQ(read.metrics.at("loss"), 0.1);
  EXPECT_TRUE(std::isnan(read.metrics.at("grad_norm")));

  RankMessage hello;
  hello.type = "hello";
  hello.pid = 123;
  EXPECT_EQ(Decoded(EncodeRankMessage(hello)).pid, 123);

  RankMessage checkpoint;
  checkpoint.type = "checkpoint";
  checkpoint.data = R"({"directory":"/c","bytes":3})";
  EXPECT_EQ(Decoded(EncodeRankMessage(checkpoint)).data, checkpoint.data);
}

TEST(Messages, FatalTextOfAnySizeAndBytesFitsOneLine) {
  RankMessage fatal;
  fatal.type = "fatal";
  fatal.kind = "BUG";
  fatal.text = std::string(200'000, '\x01') + "\n";
  fatal.data = "\"" + std::string(100'000, 'x') + "\"";
  const std::string line = EncodeRankMessage(fatal);
  EXPECT_LE(static_cast<int64_t>(line.size()), kMaxMessageBytes);
  EXPECT_EQ(Decoded(line).kind, "BUG");

  fatal.text = "bad \xff byte";
  fatal.data = "not json";
  EXPECT_NE(Decoded(EncodeRankMessage(fatal)).text.find("bad "), std::string::npos);
}

TEST(Messages, AgentMessagesSurviveTheRoundTrip) {
  std::string line = EncodeAgentMessage({"action", 5, "checkpoint_stop"});
  line.pop_back();
  const Result<AgentMessage> message = DecodeAgentMessage(line);
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->type, "action");
  EXPECT_EQ(message->epoch, 5);
  EXPECT_EQ(message->action, "checkpoint_stop");
}

TEST(Messages, NewerKeysAreIgnoredAndWrongOnesRefused) {
  EXPECT_TRUE(DecodeRankMessage(R"({"v":1,"type":"hello","epoch":1,"flavour":[1]})").ok());
  const std::vector<std::string> bad = {
      "",
      "x",
      "[]",
      "{}",
      R"({"v":2,"type":"hello"})",
      R"({"v":1})",
      R"({"v":1,"type":3})",
      R"({"v":1,"type":"hello","epoch":"1"})",
      R"({"v":1,"type":"progress","metrics":[1]})",
      R"({"v":1,"type":"progress","metrics":{"loss":"low"}})",
      R"({"v":1,"type":"hello","pad":")" + std::string(kMaxMessageBytes, 'x') + "\"}"};
  for (const std::string& line : bad) {
    const Result<RankMessage> message = DecodeRankMessage(line);
    EXPECT_FALSE(message.ok()) << line.substr(0, 80);
    EXPECT_EQ(message.status().code(), Code::kInvalidArgument);
  }
  EXPECT_FALSE(DecodeAgentMessage(R"({"v":1,"type":"action","action":4})").ok());
}

}  // namespace
}  // namespace tandem
