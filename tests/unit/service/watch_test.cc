// Watches: from the state or from a revision, gap-free, over restarts, and ended rather than
// skipped.
#include <gtest/gtest.h>

#include "tests/unit/service/fake_agent.h"

namespace tandem::service {
namespace {

// One open watch.
class Watch {
 public:
  Watch(ServedCoordinator& served, const std::string& name, int64_t start_revision) {
    SetDeadline(&context_);
    v1::WatchJobsRequest request;
    request.set_name(name);
    request.set_start_revision(start_revision);
    reader_ = served.jobs().WatchJobs(&context_, request);
  }
  ~Watch() { context_.TryCancel(); }
  v1::WatchJobsResponse Next() {
    v1::WatchJobsResponse message;
    EXPECT_TRUE(reader_->Read(&message)) << reader_->Finish().error_message();
    return message;
  }
  // The next `count` events, however they are grouped.
  std::vector<v1::JobEvent> Events(size_t count) {
    std::vector<v1::JobEvent> events;
    while (events.size() < count && !testing::Test::HasFailure()) {
      const v1::WatchJobsResponse message = Next();
      for (const v1::JobEvent& event : message.events()) events.push_back(event);
    }
    return events;
  }
  // Reads on until a message says this of the store.
  void AwaitStoreFailure(const std::string& why) {
    while (Next().store_failure() != why && !testing::Test::HasFailure()) {
    }
  }
  grpc::Status End() {
    v1::WatchJobsResponse message;
    while (reader_->Read(&message)) {
    }
    return reader_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::WatchJobsResponse>> reader_;
};

TEST(Watches, StartWithTheCurrentState) {
  ServedCoordinator served;
  served.MustCreate("a");
  const v1::Job b = served.MustCreate("b");
  Watch all(served, "", 0);
  const v1::WatchJobsResponse first = all.Next();
  EXPECT_EQ(first.jobs_size(), 2);
  EXPECT_EQ(first.revision(), b.revision());
  served.MustCreate("c");
  const v1::WatchJobsResponse next = all.Next();
  ASSERT_EQ(next.jobs_size(), 1);
  EXPECT_EQ(next.jobs(0).name(), "projects/default/jobs/c");
}

TEST(Watches, GoOnFromARevisionWithoutAGap) {
  ServedCoordinator served;
  FakeAgent agent(served.channel());
  served.MustCreate("gapless");
  RunToSuccess(agent, agent.AwaitLaunch());
  served.AwaitState("gapless", v1::JOB_STATE_SUCCEEDED);
  Watch whole(served, "", 1);
  const std::vector<v1::JobEvent> events = whole.Events(4);
  ASSERT_GE(events.size(), 4u);
  int64_t expected = 2;
  for (const v1::JobEvent& event : events) EXPECT_EQ(event.revision(), expected++);

  Watch rest(served, "gapless", events[1].revision());
  const std::vector<v1::JobEvent> next = rest.Events(1);
  ASSERT_FALSE(next.empty());
  EXPECT_EQ(next.front().revision(), events[2].revision());
}

TEST(Watches, OfOneJobSeeNoOther) {
  ServedCoordinator served;
  served.MustCreate("mine");
  Watch mine(served, "mine", 0);
  EXPECT_EQ(mine.Next().jobs_size(), 1);
  served.MustCreate("other");
  v1::Job job;
  ASSERT_TRUE(served.Cancel("mine", &job).ok());
  const v1::WatchJobsResponse next = mine.Next();
  ASSERT_EQ(next.jobs_size(), 1);
  EXPECT_EQ(next.jobs(0).uid(), job.uid());
}

TEST(Watches, EndWithUnavailableAtAStopAndGoOnAfterTheRestart) {
  ServedCoordinator served;
  const v1::Job a = served.MustCreate("a");
  auto before = std::make_unique<Watch>(served, "", 0);
  EXPECT_EQ(before->Next().revision(), a.revision());
  served.Restart();
  EXPECT_EQ(before->End().error_code(), grpc::StatusCode::UNAVAILABLE);
  served.MustCreate("b");
  Watch after(served, "", a.revision());
  const std::vector<v1::JobEvent> next = after.Events(1);
  ASSERT_FALSE(next.empty());
  EXPECT_EQ(next.front().revision(), a.revision() + 1);
}

TEST(Watches, AreToldThatTheStoreTakesNoWritesAndWhenItDoesAgain) {
  ServedCoordinator served;
  served.MustCreate("a");
  Watch before(served, "a", 0);
  EXPECT_EQ(before.Next().store_failure(), "");
  const std::string why = "the disk failed before the commit";
  served.store().FailNextCommit(/*after_writing=*/false);
  v1::Job job;
  const grpc::Status refused = served.Cancel("a", &job);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_NE(refused.error_message().find(why), std::string::npos) << refused.error_message();
  before.AwaitStoreFailure(why);
  Watch during(served, "a", 0);
  const v1::WatchJobsResponse first = during.Next();
  EXPECT_EQ(first.jobs_size(), 1);
  EXPECT_EQ(first.store_failure(), why);
  served.store().Heal();
  before.AwaitStoreFailure("");
  during.AwaitStoreFailure("");
}

v1::JobEvent EventAt(int64_t revision) {
  v1::JobEvent event;
  event.set_revision(revision);
  return event;
}

BoardRow RowNamed(const std::string& uid, int64_t order) {
  v1::Job job;
  job.set_uid(uid);
  job.set_name("projects/default/jobs/" + uid);
  return {order, std::make_shared<const v1::Job>(job)};
}

// Counts what it is offered; refuses after `room`.
class CountingWatcher : public Watcher {
 public:
  explicit CountingWatcher(int room) : room_(room) {}
  bool Offer(v1::WatchJobsResponse message) override {
    messages.push_back(std::move(message));
    return static_cast<int>(messages.size()) <= room_;
  }
  bool HasRoom() const override { return static_cast<int>(messages.size()) * 2 < room_; }
  void End() override {}
  std::vector<v1::WatchJobsResponse> messages;

 private:
  const int room_;
};

TEST(JobBoard, CompactedStartsAreRefused) {
  JobBoard board;
  const BoardRow row = RowNamed("x", 1);
  const int64_t last = static_cast<int64_t>(WatchLog::kKept) + 100;
  for (int64_t revision = 1; revision <= last; ++revision) board.Publish(row, EventAt(revision));
  const auto watcher = std::make_shared<CountingWatcher>(1000);
  const Status compacted = board.Watch(watcher, "", 99);
  EXPECT_EQ(compacted.code(), Code::kOutOfRange);
  EXPECT_EQ(compacted.message().rfind("COMPACTED", 0), 0u) << compacted.message();
  ASSERT_TRUE(board.Watch(watcher, "", 100).ok());
  size_t events = 0;
  for (const auto& message : watcher->messages)
    events += static_cast<size_t>(message.events_size());
  EXPECT_EQ(events, WatchLog::kKept);
  EXPECT_LT(watcher->messages.size(), 300u) << "a backlog is batched";
}

TEST(JobBoard, ProgressIsThrottledAndMarksGoOutEvenToTheIdle) {
  JobBoard board;
  board.Publish(RowNamed("x", 1), EventAt(1));
  const auto watcher = std::make_shared<CountingWatcher>(1000);
  ASSERT_TRUE(board.Watch(watcher, "", 1).ok());
  watcher->messages.clear();
  for (int i = 0; i < 50; ++i) board.Refresh(RowNamed("x", 1));
  EXPECT_TRUE(watcher->messages.empty());
  board.Tick(1);
  ASSERT_EQ(watcher->messages.size(), 2u);
  EXPECT_EQ(watcher->messages[0].jobs_size(), 1);
  EXPECT_EQ(watcher->messages[0].events_size(), 0);
  EXPECT_EQ(watcher->messages[1].jobs_size(), 0) << "the progress mark";
  EXPECT_EQ(watcher->messages[1].revision(), 1);
  board.Tick(JobBoard::kMarkPeriodMs);
  EXPECT_EQ(watcher->messages.size(), 2u);
  board.Tick(JobBoard::kMarkPeriodMs + 1);
  EXPECT_EQ(watcher->messages.size(), 3u);
}

TEST(JobBoard, AWatcherThatIsFullGetsNoMore) {
  JobBoard board;
  const auto slow = std::make_shared<CountingWatcher>(3);
  ASSERT_TRUE(board.Watch(slow, "", 0).ok());
  for (int64_t revision = 1; revision <= 10; ++revision) {
    board.Publish(RowNamed("x", 1), EventAt(revision));
  }
  EXPECT_EQ(slow->messages.size(), 4u) << "the refused one is the last";
}

}  // namespace
}  // namespace tandem::service
