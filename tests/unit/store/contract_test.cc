// What every store must do; run for each of them.
#include <gtest/gtest.h>

#include "coordinator/core/state_hash.h"
#include "coordinator/store/memory_store.h"
#include "coordinator/store/sqlite_store.h"
#include "tests/unit/store/sample_rows.h"

namespace tandem::store {
namespace {

// A disk, and processes that open it one after the other.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual std::unique_ptr<Store> Open() = 0;
};

class MemoryDisk : public Disk {
 public:
  std::unique_ptr<Store> Open() override { return std::make_unique<MemoryStore>(rows_); }

 private:
  std::shared_ptr<Rows> rows_ = std::make_shared<Rows>();
};

class SqliteDisk : public Disk {
 public:
  std::unique_ptr<Store> Open() override {
    Result<std::unique_ptr<Store>> store = OpenSqliteStore(folder_.File("tandem.db"));
    TANDEM_CHECK_MSG(store.ok(), store.status().ToString());
    return std::move(store).value();
  }

 private:
  TemporaryFolder folder_;
};

class StoreTest : public testing::TestWithParam<std::string> {
 protected:
  StoreTest() {
    if (GetParam() == "Sqlite") {
      disk_ = std::make_unique<SqliteDisk>();
    } else {
      disk_ = std::make_unique<MemoryDisk>();
    }
  }
  std::unique_ptr<Disk> disk_;
};

Contents LoadAll(Store& store) {
  Result<Contents> contents = store.Load(1'000);
  TANDEM_CHECK_MSG(contents.ok(), contents.status().ToString());
  return std::move(contents).value();
}

TEST_P(StoreTest, NewIsEmpty) {
  const std::unique_ptr<Store> store = disk_->Open();
  const Contents contents = LoadAll(*store);
  EXPECT_EQ(contents.loaded.generation, 1);
  EXPECT_EQ(contents.loaded.revision, 0);
  EXPECT_EQ(contents.loaded.oldest_event, 1);
  EXPECT_TRUE(contents.loaded.jobs.empty());
  EXPECT_TRUE(contents.events.empty());
}

TEST_P(StoreTest, EveryMemberComesBack) {
  const core::Persist persist = SamplePersist(1);
  {
    const std::unique_ptr<Store> store = disk_->Open();
    ASSERT_TRUE(store->Commit({&persist}).ok());
  }
  const std::unique_ptr<Store> store = disk_->Open();
  const Contents contents = LoadAll(*store);
  ASSERT_EQ(contents.loaded.jobs.size(), 1U);
  core::Effects written, read;
  written.persist = persist;
  read.persist.jobs = contents.loaded.jobs;
  read.persist.events = contents.events;
  read.persist.requests = contents.loaded.requests;
  read.persist.workers = contents.loaded.workers;
  // Text that is not UTF-8 is replaced on the way.
  if (GetParam() == "Sqlite") {
    EXPECT_EQ(read.persist.jobs[0].message, "a \"message\" with \xc3\xa4 and \xef\xbf\xbd");
    read.persist.jobs[0].message = written.persist.jobs[0].message;
  }
  EXPECT_EQ(core::EffectsHash(written), core::EffectsHash(read));
  EXPECT_EQ(contents.events[0].before, core::JobState::kAdmitted);
  EXPECT_EQ(contents.events[0].after, core::JobState::kRunning);
  EXPECT_EQ(contents.events[0].reason, "reason");
  EXPECT_EQ(contents.loaded.generation, 2);
}

TEST_P(StoreTest, RowsAreReplacedAndForgotten) {
  const std::unique_ptr<Store> store = disk_->Open();
  core::Persist first = SamplePersist(1);
  core::Persist second = SamplePersist(2);
  second.jobs[0] = first.jobs[0];
  second.jobs[0].report = nullptr;
  second.jobs[0].epoch = 99;
  ASSERT_TRUE(store->Commit({&first, &second}).ok());
  core::Persist third = SamplePersist(3);
  third.forgotten_requests = {"r1"};
  third.forgotten_workers = {"w2"};
  third.drop_events_below = 2;
  ASSERT_TRUE(store->Commit({&third}).ok());

  const Contents contents = LoadAll(*store);
  ASSERT_EQ(contents.loaded.jobs.size(), 2U);
  EXPECT_EQ(contents.loaded.jobs[0].epoch, 99);
  EXPECT_EQ(contents.loaded.jobs[0].report, nullptr);
  EXPECT_EQ(contents.loaded.requests.size(), 2U);
  EXPECT_EQ(contents.loaded.workers.size(), 2U);
  EXPECT_EQ(contents.loaded.revision, 3);
  EXPECT_EQ(contents.loaded.oldest_event, 2);
  EXPECT_EQ(contents.events.size(), 2U);
}

TEST_P(StoreTest, OnlyTheNewestEventsAreLoaded) {
  const std::unique_ptr<Store> store = disk_->Open();
  for (core::Revision revision = 1; revision <= 10; ++revision) {
    const core::Persist persist = SamplePersist(revision);
    ASSERT_TRUE(store->Commit({&persist}).ok());
  }
  Result<Contents> contents = store->Load(3);
  ASSERT_TRUE(contents.ok());
  ASSERT_EQ(contents->events.size(), 3U);
  EXPECT_EQ(contents->events[0].revision, 8);
  EXPECT_EQ(contents->events[2].revision, 10);
}

TEST_P(StoreTest, ASecondWriterStopsTheFirst) {
  const std::unique_ptr<Store> first = disk_->Open();
  const core::Persist one = SamplePersist(1);
  ASSERT_TRUE(first->Commit({&one}).ok());
  const std::unique_ptr<Store> second = disk_->Open();
  const core::Persist two = SamplePersist(2);
  const Status status = first->Commit({&two});
  EXPECT_EQ(status.code(), Code::kAborted) << status.ToString();
  EXPECT_EQ(first->health().code(), Code::kAborted);
  EXPECT_EQ(first->Recover().code(), Code::kAborted) << "it must never write again";
  EXPECT_TRUE(second->Commit({&two}).ok());
  EXPECT_EQ(LoadAll(*second).loaded.revision, 2);
}

TEST_P(StoreTest, AnEmptyBatchIsNoTransaction) {
  const std::unique_ptr<Store> first = disk_->Open();
  const std::unique_ptr<Store> second = disk_->Open();
  const core::Persist empty;
  EXPECT_TRUE(first->Commit({&empty, &empty}).ok());
  EXPECT_TRUE(first->Commit({}).ok());
}

INSTANTIATE_TEST_SUITE_P(All, StoreTest, testing::Values("Sqlite", "Memory"),
                         [](const auto& disk) { return disk.param; });

}  // namespace
}  // namespace tandem::store
