// Everything has a limit: what is refused, and what is forgotten.
#include <gtest/gtest.h>

#include <algorithm>

#include "coordinator/core/invariants.h"
#include "coordinator/core/state_hash.h"
#include "coordinator/core/step.h"

namespace tandem::core {
namespace {

class LimitsTest : public testing::Test {
 protected:
  LimitsTest() { Step(state_, StoreLoaded{}, now_); }

  Effects Create(const std::string& request_id = "") {
    JobCreated event;
    event.token = 7;
    event.request_id = request_id;
    event.uid = "u" + std::to_string(state_.jobs.size() + 1);
    event.project = "default";
    event.name = "job";
    event.spec = MakeBlob("spec");
    return Step(state_, event, now_);
  }
  Effects Register(const std::string& worker) {
    WorkerRegistered event;
    event.worker = worker;
    event.incarnation = "a";
    event.slots = 1;
    event.connection = ++connection_;
    return Step(state_, event, now_);
  }
  Effects Tick(int64_t ms) {
    Effects last;
    for (int64_t left_ms = ms; left_ms > 0; left_ms -= 1'000) {
      now_.monotonic_ms += std::min<int64_t>(left_ms, 1'000);
      now_.wall_ms += std::min<int64_t>(left_ms, 1'000);
      last = Step(state_, Ticked{}, now_);
    }
    return last;
  }

  State state_;
  Now now_{1'000, 1'700'000'000'000};
  ConnectionId connection_ = 0;
};

TEST_F(LimitsTest, Jobs) {
  state_.limits.max_jobs = 2;
  EXPECT_TRUE(Create().replies[0].status.ok());
  EXPECT_TRUE(Create().replies[0].status.ok());
  const Effects refused = Create();
  EXPECT_EQ(refused.replies[0].status.code(), Code::kResourceExhausted);
  EXPECT_TRUE(refused.persist.empty());
}

TEST_F(LimitsTest, PendingJobs) {
  state_.limits.max_pending_jobs = 1;
  Register("w1");
  EXPECT_TRUE(Create().replies[0].status.ok());  // runs
  EXPECT_TRUE(Create().replies[0].status.ok());  // waits
  EXPECT_EQ(Create().replies[0].status.code(), Code::kResourceExhausted);
}

TEST_F(LimitsTest, Workers) {
  state_.limits.max_workers = 1;
  Register("w1");
  const Effects refused = Register("w2");
  ASSERT_EQ(refused.commands.size(), 1U);
  EXPECT_TRUE(std::holds_alternative<RefuseConnection>(refused.commands[0].what));
  EXPECT_EQ(state_.workers.size(), 1U);
}

TEST_F(LimitsTest, RequestsAreForgottenAfterADay) {
  Create("r1");
  Tick(state_.limits.request_memory_ms);
  EXPECT_EQ(state_.requests.size(), 1U);
  const Effects effects = Tick(1);
  EXPECT_EQ(effects.persist.forgotten_requests, std::vector<std::string>{"r1"});
  EXPECT_TRUE(state_.requests.empty());
  EXPECT_TRUE(CheckInvariants(state_, now_).empty());
}

TEST_F(LimitsTest, LostWorkersAreForgottenAfterADay) {
  Register("w1");
  Tick(state_.limits.lease_ms);
  EXPECT_EQ(StateOf(state_.workers.at("w1")), WorkerState::kLost);
  const Effects effects = Tick(state_.limits.worker_memory_ms - state_.limits.lease_ms);
  EXPECT_EQ(effects.persist.forgotten_workers, std::vector<std::string>{"w1"});
  EXPECT_EQ(effects.removed_workers.count("w1"), 1U);
  EXPECT_TRUE(state_.workers.empty());
}

TEST_F(LimitsTest, OldEventsAreDroppedInStrides) {
  state_.limits.kept_events = 10;
  for (int i = 0; i < 10; ++i) Create();
  EXPECT_EQ(Tick(1).persist.drop_events_below, 0);
  Create();
  Create();
  EXPECT_EQ(Tick(1).persist.drop_events_below, 3);
  EXPECT_EQ(state_.oldest_event, 3);
  EXPECT_EQ(Tick(1).persist.drop_events_below, 0);
}

TEST_F(LimitsTest, AGangNeedsASlot) {
  JobCreated event;
  event.slots = 0;
  event.uid = "u";
  EXPECT_EQ(Step(state_, event, now_).replies[0].status.code(), Code::kInvalidArgument);
}

TEST_F(LimitsTest, TheSameEventsGiveTheSameHash) {
  State other;
  Step(other, StoreLoaded{}, now_);
  EXPECT_EQ(StateHash(state_), StateHash(other));
  Create();
  EXPECT_NE(StateHash(state_), StateHash(other));
}

}  // namespace
}  // namespace tandem::core
