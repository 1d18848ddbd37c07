// The checkers must be able to fail: each violation is planted and must be named.
#include "coordinator/core/invariants.h"

#include <gtest/gtest.h>

#include "coordinator/core/step.h"

namespace tandem::core {
namespace {

class InvariantsTest : public testing::Test {
 protected:
  InvariantsTest() {
    Step(state_, StoreLoaded{}, now_);
    history_.Restart(state_);
    WorkerRegistered worker;
    worker.worker = "w1";
    worker.incarnation = "a";
    worker.slots = 2;
    worker.connection = 1;
    Do(worker);
    JobCreated job;
    job.uid = "u1";
    job.project = "default";
    job.name = "job";
    job.request_id = "r1";
    job.spec = MakeBlob("spec");
    Do(job);
  }
  Effects Do(const Event& event) {
    Effects effects = Step(state_, event, now_);
    EXPECT_TRUE(history_.Check(state_, effects).empty());
    EXPECT_TRUE(CheckInvariants(state_, now_).empty());
    return effects;
  }
  Job& job() { return state_.jobs.at("u1"); }
  Worker& worker() { return state_.workers.at("w1"); }
  // Some violation begins with `number`.
  static bool Names(const std::vector<std::string>& broken, const std::string& number) {
    for (const std::string& text : broken) {
      if (text.starts_with(number)) return true;
    }
    return false;
  }

  State state_;
  HistoryChecker history_;
  Now now_{1'000, 1'700'000'000'000};
};

TEST_F(InvariantsTest, RunningWithoutAttempt) {
  job().attempt.state = AttemptState::kEnded;
  EXPECT_TRUE(Names(CheckInvariants(state_, now_), "I1"));
}

TEST_F(InvariantsTest, LiveAttemptWithoutSlots) {
  worker().occupants.clear();
  EXPECT_TRUE(Names(CheckInvariants(state_, now_), "I2"));
}

TEST_F(InvariantsTest, SlotsLeaked) {
  worker().occupants[{"u1", 7}] = {.slots = 1};
  EXPECT_TRUE(Names(CheckInvariants(state_, now_), "I2"));
}

TEST_F(InvariantsTest, PartOfAGang) {
  job().slots = 2;
  EXPECT_TRUE(Names(CheckInvariants(state_, now_), "I3"));
}

TEST_F(InvariantsTest, RequestWithoutJob) {
  state_.requests["r1"].job = "nobody";
  EXPECT_TRUE(Names(CheckInvariants(state_, now_), "I9"));
}

TEST_F(InvariantsTest, CancelWithoutBound) {
  Do(JobCancelRequested{1, "u1", 0});
  job().cancel_deadline_ms = 0;
  EXPECT_TRUE(Names(CheckInvariants(state_, now_), "I14"));
}

TEST_F(InvariantsTest, IndexOutOfStep) {
  state_.queue.insert(QueueKeyOf(job()));
  EXPECT_TRUE(Names(CheckInvariants(state_, now_), "index"));
}

TEST_F(InvariantsTest, TerminalStateChanged) {
  AttemptEnded end;
  end.worker = "w1";
  end.connection = 1;
  end.attempt = {"u1", 1};
  end.cause = Cause::kOk;
  Do(end);
  job().state = JobState::kFailed;
  EXPECT_TRUE(Names(history_.Check(state_, {}), "I8"));
}

TEST_F(InvariantsTest, ChangeWithoutEvent) {
  job().state = JobState::kRunning;
  EXPECT_TRUE(Names(history_.Check(state_, {}), "I10"));
}

TEST_F(InvariantsTest, RowNotWritten) {
  AttemptReported report{"w1", 1, {{"u1", 1}, true, {}, false}};
  Effects effects = Step(state_, report, now_);
  ASSERT_EQ(effects.persist.jobs.size(), 1U);
  effects.persist.jobs.clear();
  EXPECT_TRUE(Names(history_.Check(state_, effects), "I10"));
}

TEST_F(InvariantsTest, EpochSkipped) {
  AttemptReported report{"w1", 1, {{"u1", 1}, true, {}, false}};
  const Effects effects = Step(state_, report, now_);
  job().epoch = 5;
  EXPECT_TRUE(Names(history_.Check(state_, effects), "I6"));
}

TEST_F(InvariantsTest, LaunchWhereItDoesNotLive) {
  Effects effects;
  effects.commands.push_back({"w1", 1, LaunchAttempt{{"u1", 2}, "job", "default", 1, nullptr}});
  EXPECT_TRUE(Names(history_.Check(state_, effects), "I6"));
}

using InvariantsDeathTest = InvariantsTest;

TEST_F(InvariantsDeathTest, AnythingBeforeTheStoreAborts) {
  State fresh;
  EXPECT_DEATH(Step(fresh, Ticked{}, now_), "StoreLoaded must come first");
  EXPECT_DEATH(Step(state_, StoreLoaded{}, now_), "StoreLoaded must come first");
}

}  // namespace
}  // namespace tandem::core
