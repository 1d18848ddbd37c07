// Questions to agents, without agents: which end of a stream fails which question.
#include "coordinator/service/relay.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>

#include "coordinator/service/worker_hub.h"

namespace tandem::service {
namespace {

class RelayTest : public testing::Test {
 protected:
  // A stream that keeps what it is told to send.
  uint64_t Connect() {
    const uint64_t connection = hub_.Attach(std::make_shared<ChannelStream>(/*capacity=*/8));
    hub_.Confirm("w1", connection);
    return connection;
  }
  void AskLogs() {
    relay_.AskLogs("w1", {}, /*deadline_ms=*/1'000,
                   [this](const Result<v1::LogChunk>& answer) { answered_ = answer.status(); });
  }

  WorkerHub hub_;
  Relay relay_{hub_};
  std::optional<Status> answered_;
};

TEST_F(RelayTest, TheEndOfAReplacedStreamFailsNothingThatTheNewOneWasAsked) {
  const uint64_t old_connection = Connect();
  const uint64_t new_connection = Connect();
  AskLogs();
  hub_.Detach(old_connection);
  relay_.OnDisconnected(old_connection);
  EXPECT_FALSE(answered_.has_value());
  hub_.Detach(new_connection);
  relay_.OnDisconnected(new_connection);
  ASSERT_TRUE(answered_.has_value());
  EXPECT_EQ(answered_->code(), Code::kUnavailable);
}

TEST_F(RelayTest, AWorkerThatIsNotConnectedIsSaidAtOnce) {
  AskLogs();
  ASSERT_TRUE(answered_.has_value());
  EXPECT_NE(answered_->message().find("worker 'w1' is not connected"), std::string::npos);
}

TEST_F(RelayTest, WhoAsksAfterTheStopIsNotToldOfTooManyQuestions) {
  Connect();
  relay_.Stop();
  AskLogs();
  ASSERT_TRUE(answered_.has_value());
  EXPECT_EQ(answered_->code(), Code::kUnavailable);
  EXPECT_NE(answered_->message().find("stopping"), std::string::npos) << answered_->message();
}

}  // namespace
}  // namespace tandem::service
