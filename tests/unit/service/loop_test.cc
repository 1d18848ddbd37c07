// The state thread by itself: batches, a full queue, a store that fails.
#include "coordinator/loop/loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "coordinator/store/memory_store.h"

namespace tandem {
namespace {

// No gRPC in this file: it is what a thread sanitizer can follow.
constexpr std::chrono::seconds kPatience{10};

class NullSink : public EffectSink {
 public:
  void Load(const core::State&, const std::vector<core::JobEvent>&) override {}
  void Publish(const core::State&, const core::Effects& effects) override {
    published += static_cast<int>(effects.persist.events.size());
  }
  void Command(const core::Command& command) override {
    refused += std::holds_alternative<core::RefuseConnection>(command.what) ? 1 : 0;
  }
  std::atomic<int> published{0};
  std::atomic<int> refused{0};
};

// Commits wait until the gate opens, and are counted.
class GatedStore : public store::Store {
 public:
  Result<store::Contents> Load(int64_t max_events) override { return memory_.Load(max_events); }
  Status Commit(const std::vector<const core::Persist*>& batch) override {
    entered.set_value();
    gate.wait();
    ++commits;
    return memory_.Commit(batch);
  }
  Status Recover() override { return memory_.Recover(); }
  Status health() const override { return memory_.health(); }

  std::promise<void>
      entered;  // the first commit has begun; there is no second before the gate opens
  std::promise<void> open;
  std::shared_future<void> gate{open.get_future()};
  std::atomic<int> commits{0};

 private:
  store::MemoryStore memory_{std::make_shared<store::Rows>()};
};

core::Event Created(core::RequestToken token, int number) {
  core::JobCreated event;
  event.token = token;
  event.uid = "uid-" + std::to_string(number);
  event.project = "default";
  event.name = "job";
  event.spec = core::MakeBlob("");
  return event;
}

// The reply's status, once it comes.
std::future<Status> AskToCreate(Loop& loop, int number) {
  auto done = std::make_shared<std::promise<Status>>();
  std::future<Status> status = done->get_future();
  const Status asked =
      loop.Ask([&](core::RequestToken token) { return Created(token, number); },
               [done](const core::Reply& reply) { done->set_value(reply.status); });
  if (!asked.ok()) done->set_value(asked);
  return status;
}

Status Wait(std::future<Status>& status) {
  if (status.wait_for(kPatience) != std::future_status::ready) {
    return Internal("no reply came");
  }
  return status.get();
}

TEST(Loop, WhatArrivesDuringACommitBecomesOneBatch) {
  GatedStore store;
  NullSink sink;
  Metrics metrics("test");
  Loop loop(store, sink, metrics, Clock::System());
  ASSERT_TRUE(loop.Start({}).ok());
  std::vector<std::future<Status>> replies;
  replies.push_back(AskToCreate(loop, 0));
  store.entered.get_future().wait();
  store.entered = std::promise<void>();
  for (int i = 1; i <= 64; ++i) replies.push_back(AskToCreate(loop, i));
  for (auto& reply : replies) {
    EXPECT_EQ(reply.wait_for(std::chrono::seconds(0)), std::future_status::timeout)
        << "nothing is answered before its commit";
  }
  store.open.set_value();
  for (auto& reply : replies) EXPECT_TRUE(Wait(reply).ok());
  EXPECT_EQ(store.commits, 2);
  EXPECT_EQ(sink.published, 65);
}

TEST(Loop, AFullQueueIsRefusedAtOnce) {
  GatedStore store;
  NullSink sink;
  Metrics metrics("test");
  Loop loop(store, sink, metrics, Clock::System());
  ASSERT_TRUE(loop.Start({}).ok());
  auto first = AskToCreate(loop, 0);
  store.entered.get_future().wait();
  store.entered = std::promise<void>();
  for (size_t i = 0; i < Loop::kMaxQueued; ++i) ASSERT_TRUE(loop.Post(core::Ticked{}).ok());
  EXPECT_EQ(loop.Post(core::Ticked{}).code(), Code::kResourceExhausted);
  EXPECT_EQ(AskToCreate(loop, 1).get().code(), Code::kResourceExhausted);
  store.open.set_value();
  EXPECT_TRUE(Wait(first).ok());
}

// A loop over rows that outlive it, whose store has just failed to commit job 1.
class FailedLoopTest : public testing::Test {
 protected:
  void Fail(bool after_writing) {
    ASSERT_TRUE(loop_.Start({}).ok());
    core::WorkerRegistered worker;
    worker.worker = "w1";
    worker.connection = 1;
    worker.incarnation = "a";
    worker.slots = 1;
    ASSERT_TRUE(loop_.Post(worker).ok());
    auto good = AskToCreate(loop_, 0);
    ASSERT_TRUE(Wait(good).ok());
    ASSERT_TRUE(loop_.healthy());
    before_ = sink_.published;
    store_.FailNextCommit(after_writing);
    auto lost = AskToCreate(loop_, 1);
    EXPECT_EQ(Wait(lost).code(), Code::kUnavailable);
    EXPECT_FALSE(loop_.healthy());
    EXPECT_EQ(sink_.published, before_) << "what was not committed is not shown";
    auto later = AskToCreate(loop_, 2);
    EXPECT_EQ(Wait(later).code(), Code::kUnavailable);
  }

  void AwaitRecovery() {
    store_.Heal();
    const int64_t deadline_ms = Clock::System().MonotonicMs() + kPatience.count() * 1000;
    while (!loop_.healthy()) {
      ASSERT_LT(Clock::System().MonotonicMs(), deadline_ms) << "the store is not tried again";
      std::this_thread::yield();
    }
  }

  const std::shared_ptr<store::Rows> rows_ = std::make_shared<store::Rows>();
  store::MemoryStore store_{rows_};
  NullSink sink_;
  Metrics metrics_{"test"};
  Loop loop_{store_, sink_, metrics_, Clock::System()};
  int before_ = 0;
};

TEST_F(FailedLoopTest, WhatWasNotCommittedIsForgottenOnceTheStoreTakesWritesAgain) {
  Fail(/*after_writing=*/false);
  AwaitRecovery();
  EXPECT_EQ(sink_.published, before_);
  EXPECT_EQ(sink_.refused, 1) << "the agent must register with the state as it is now";
  auto again = AskToCreate(loop_, 1);
  EXPECT_TRUE(Wait(again).ok()) << "memory was ahead: it still knew the uid";
  loop_.Stop();
  EXPECT_EQ(rows_->jobs.size(), 2u);
  EXPECT_EQ(sink_.published, before_ + 1);
}

TEST_F(FailedLoopTest, WhatReachedTheDiskAllTheSameIsShownAfterwards) {
  Fail(/*after_writing=*/true);
  AwaitRecovery();
  EXPECT_EQ(sink_.published, before_ + 1) << "job 1 is on the disk";
  auto again = AskToCreate(loop_, 1);
  EXPECT_FALSE(Wait(again).ok()) << "its uid is in use";
  loop_.Stop();
  EXPECT_EQ(rows_->jobs.size(), 2u);
}

TEST(Loop, AStopAnswersWhoWaits) {
  store::MemoryStore store(std::make_shared<store::Rows>());
  NullSink sink;
  Metrics metrics("test");
  Loop loop(store, sink, metrics, Clock::System());
  ASSERT_TRUE(loop.Start({}).ok());
  loop.Stop();
  auto late = AskToCreate(loop, 0);
  EXPECT_EQ(Wait(late).code(), Code::kUnavailable);
  loop.Stop();
}

}  // namespace
}  // namespace tandem
