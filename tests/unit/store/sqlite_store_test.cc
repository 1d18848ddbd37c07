// What only a store on disk can get wrong: crashes, damage, foreign files, a full disk.
#include "coordinator/store/sqlite_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/files.h"
#include "coordinator/store/sqlite_connection.h"
#include "tests/unit/store/sample_rows.h"

namespace tandem::store {
namespace {

// In a child: commits revisions one by one and writes each to `pipe` once it is acknowledged. Never
// returns.
[[noreturn]] void CommitForever(const std::string& path, int pipe) {
  Result<std::unique_ptr<Store>> store = OpenSqliteStore(path);
  if (!store.ok()) _exit(1);
  for (core::Revision revision = 1;; ++revision) {
    const core::Persist persist = SamplePersist(revision);
    if (!(*store)->Commit({&persist}).ok()) _exit(2);
    if (write(pipe, &revision, sizeof revision) != sizeof revision) _exit(3);
  }
}

TEST(SqliteStore, KillLosesNothingAcknowledged) {
  for (const core::Revision kill_after : {1, 7, 40}) {
    TemporaryFolder folder;
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) CommitForever(folder.File("tandem.db"), ends[1]);
    close(ends[1]);
    core::Revision acknowledged = 0;
    while (acknowledged < kill_after) {
      ASSERT_EQ(read(ends[0], &acknowledged, sizeof acknowledged), ssize_t{sizeof acknowledged});
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    while (read(ends[0], &acknowledged, sizeof acknowledged) > 0) continue;
    close(ends[0]);

    Result<std::unique_ptr<Store>> store = OpenSqliteStore(folder.File("tandem.db"));
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    Result<Contents> contents = (*store)->Load(1'000'000);
    ASSERT_TRUE(contents.ok()) << contents.status().ToString();
    EXPECT_GE(contents->loaded.revision, acknowledged);
    EXPECT_LE(contents->loaded.revision,
              acknowledged + 1);  // committed, and killed before it said so
    EXPECT_EQ(contents->loaded.jobs.size(), static_cast<size_t>(contents->loaded.revision));
    EXPECT_EQ(contents->events.size(), static_cast<size_t>(contents->loaded.revision));
  }
}

TEST(SqliteStore, RefusesWhatIsNoDatabase) {
  TemporaryFolder folder;
  const std::string path = folder.File("tandem.db");
  ASSERT_TRUE(WriteFileDurably(path, std::string(4096, 'x')).ok());
  const Result<std::unique_ptr<Store>> store = OpenSqliteStore(path);
  EXPECT_EQ(store.status().code(), Code::kDataLoss) << store.status().ToString();
  EXPECT_NE(store.status().message().find(path), std::string::npos);
  EXPECT_EQ(ReadFile(path).value(), std::string(4096, 'x'));
}

TEST(SqliteStore, RefusesADamagedDatabase) {
  TemporaryFolder folder;
  const std::string path = folder.File("tandem.db");
  {
    Result<std::unique_ptr<Store>> store = OpenSqliteStore(path);
    for (core::Revision revision = 1; revision <= 50; ++revision) {
      const core::Persist persist = SamplePersist(revision);
      ASSERT_TRUE((*store)->Commit({&persist}).ok());
    }
  }  // closing folds the log into the file
  std::string bytes = ReadFile(path).value();
  ASSERT_GT(bytes.size(), 3U * 4096U);
  for (size_t i = 4096; i < bytes.size(); i += 7) bytes[i] = static_cast<char>(bytes[i] ^ 0x5a);
  ASSERT_TRUE(WriteFileDurably(path, bytes).ok());
  const Result<std::unique_ptr<Store>> store = OpenSqliteStore(path);
  EXPECT_EQ(store.status().code(), Code::kDataLoss) << store.status().ToString();
}

TEST(SqliteStore, RefusesADamagedRow) {
  TemporaryFolder folder;
  const std::string path = folder.File("tandem.db");
  ASSERT_TRUE(OpenSqliteStore(path).ok());
  for (const std::string body : {"{", "{\"uid\":7}", "{\"uid\":\"u\",\"state\":\"FLYING\"}"}) {
    Result<std::unique_ptr<SqliteConnection>> connection = SqliteConnection::Open(path);
    ASSERT_TRUE(
        (*connection)
            ->Execute("DELETE FROM jobs; INSERT INTO jobs VALUES ('u', '" + body + "', NULL, NULL)")
            .ok());
    Result<std::unique_ptr<Store>> store = OpenSqliteStore(path);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    EXPECT_EQ((*store)->Load(10).status().code(), Code::kDataLoss) << body;
  }
}

TEST(SqliteStore, RefusesOthersDatabases) {
  TemporaryFolder folder;
  const std::string foreign = folder.File("foreign.db");
  ASSERT_TRUE((*SqliteConnection::Open(foreign))->Execute("CREATE TABLE t (x)").ok());
  EXPECT_EQ(OpenSqliteStore(foreign).status().code(), Code::kFailedPrecondition);

  const std::string newer = folder.File("newer.db");
  ASSERT_TRUE(OpenSqliteStore(newer).ok());
  ASSERT_TRUE((*SqliteConnection::Open(newer))->Execute("PRAGMA user_version=99").ok());
  const Status status = OpenSqliteStore(newer).status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("schema 99"), std::string::npos) << status.ToString();

  EXPECT_FALSE(OpenSqliteStore(folder.File("no/such/folder/tandem.db")).ok());
}

// The file may not grow any more: as on a full disk.
TEST(SqliteStore, AFailedCommitLatchesUntilThereIsRoomAgain) {
  TemporaryFolder folder;
  const std::string path = folder.File("tandem.db");
  const pid_t child = fork();
  if (child == 0) {
    Result<std::unique_ptr<Store>> store = OpenSqliteStore(path);
    const core::Persist first = SamplePersist(1);
    if (!store.ok() || !(*store)->Commit({&first}).ok()) _exit(1);
    signal(SIGXFSZ, SIG_IGN);
    rlimit room{};
    getrlimit(RLIMIT_FSIZE, &room);
    const rlimit limit{64 * 1024, room.rlim_max};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(2);
    core::Persist big = SamplePersist(2);
    big.jobs[0].spec = core::MakeBlob(std::string(1 << 20, 's'));
    const Status failure = (*store)->Commit({&big});
    if (failure.ok()) _exit(3);
    const core::Persist small = SamplePersist(2);
    if ((*store)->Commit({&small}).code() != failure.code()) _exit(4);
    if ((*store)->health().ok()) _exit(5);
    // Room again, as after something was deleted.
    if (setrlimit(RLIMIT_FSIZE, &room) != 0) _exit(6);
    if (!(*store)->Recover().ok() || !(*store)->health().ok()) _exit(7);
    if ((*store)->Load(10)->loaded.revision != 1) _exit(8);
    _exit((*store)->Commit({&small}).ok() ? 0 : 9);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);

  Result<std::unique_ptr<Store>> store = OpenSqliteStore(path);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  EXPECT_EQ((*store)->Load(10)->loaded.revision, 2);
}

}  // namespace
}  // namespace tandem::store
