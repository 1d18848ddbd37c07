#include "coordinator/store/sqlite_store.h"

#include <functional>
#include <utility>
#include <vector>

#include "coordinator/store/row_json.h"
#include "coordinator/store/sqlite_connection.h"

namespace tandem::store {
namespace {

using core::Blob;
using core::Persist;
using Statement = std::unique_ptr<SqliteStatement>;

// "TNDM": tells our files from others'.
constexpr int64_t kApplicationId = 0x544e444d;

constexpr const char* kSchema = R"sql(
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (uid TEXT PRIMARY KEY, body TEXT NOT NULL, spec BLOB, report BLOB);
CREATE TABLE events (revision INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE requests (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE workers (name TEXT PRIMARY KEY, body TEXT NOT NULL);
INSERT INTO meta VALUES ('generation', 0), ('revision', 0);
)sql";

// The statements of a commit, prepared once.
struct Writes {
  Statement begin, commit, rollback, generation, revision, trial;
  Statement job, event, request, worker, forget_request, forget_worker, drop_events;
};

class SqliteStore : public Store {
 public:
  SqliteStore(std::string path, std::unique_ptr<SqliteConnection> connection, int64_t generation,
              Writes writes)
      : path_(std::move(path)),
        connection_(std::move(connection)),
        generation_(generation),
        writes_(std::move(writes)) {}

  Result<Contents> Load(int64_t max_events) override;
  Status Commit(const std::vector<const Persist*>& batch) override;
  Status Recover() override;
  Status health() const override { return failure_; }

 private:
  // BEGIN, the generation, `write`, COMMIT; rolled back where one of them fails.
  Status InTransaction(const std::function<Status()>& write);
  Status CheckGeneration();
  Status Write(const Persist& persist);
  Status WriteRows(const Persist& persist);
  Status Forget(const Persist& persist);
  Status LoadJobs(std::vector<core::Job>* jobs);
  template <typename T>
  Status LoadBodies(const std::string& sql, Result<T> (*parse)(const std::string&),
                    std::vector<T>* values);

  const std::string path_;
  // Declared before the statements, which must go first.
  std::unique_ptr<SqliteConnection> connection_;
  const int64_t generation_;
  Writes writes_;
  Status failure_;
};

template <typename T>
Status SqliteStore::LoadBodies(const std::string& sql, Result<T> (*parse)(const std::string&),
                               std::vector<T>* values) {
  TANDEM_ASSIGN_OR_RETURN(const Statement select, connection_->Prepare(sql));
  return select->ForEachRow([&](const SqliteStatement& row) {
    TANDEM_ASSIGN_OR_RETURN(T value, parse(row.Text(0)));
    values->push_back(std::move(value));
    return Status::Ok();
  });
}

Blob BlobOf(const SqliteStatement& row, int column) {
  return row.IsNull(column) ? nullptr : core::MakeBlob(row.Text(column));
}

Status SqliteStore::LoadJobs(std::vector<core::Job>* jobs) {
  TANDEM_ASSIGN_OR_RETURN(const Statement select,
                          connection_->Prepare("SELECT body, spec, report FROM jobs ORDER BY uid"));
  return select->ForEachRow([&](const SqliteStatement& row) {
    TANDEM_ASSIGN_OR_RETURN(core::Job job, JobFromJson(row.Text(0)));
    job.spec = BlobOf(row, 1);
    job.report = BlobOf(row, 2);
    jobs->push_back(std::move(job));
    return Status::Ok();
  });
}

Result<Contents> SqliteStore::Load(int64_t max_events) {
  Contents contents;
  core::StoreLoaded& loaded = contents.loaded;
  loaded.generation = generation_;
  TANDEM_ASSIGN_OR_RETURN(loaded.revision,
                          connection_->QueryNumber("SELECT value FROM meta WHERE key='revision'"));
  TANDEM_ASSIGN_OR_RETURN(
      loaded.oldest_event,
      connection_->QueryNumber("SELECT coalesce(min(revision), " +
                               std::to_string(loaded.revision + 1) + ") FROM events"));
  TANDEM_RETURN_IF_ERROR(LoadJobs(&loaded.jobs));
  TANDEM_RETURN_IF_ERROR(
      LoadBodies("SELECT body FROM workers ORDER BY name", WorkerFromJson, &loaded.workers));
  TANDEM_RETURN_IF_ERROR(
      LoadBodies("SELECT body FROM requests ORDER BY id", RequestFromJson, &loaded.requests));
  TANDEM_RETURN_IF_ERROR(LoadBodies("SELECT body FROM events WHERE revision > " +
                                        std::to_string(loaded.revision - max_events) +
                                        " ORDER BY revision",
                                    EventFromJson, &contents.events));
  return contents;
}

Status SqliteStore::CheckGeneration() {
  int64_t generation = -1;
  TANDEM_RETURN_IF_ERROR(writes_.generation->ForEachRow([&](const SqliteStatement& row) {
    generation = row.Number(0);
    return Status::Ok();
  }));
  if (generation == generation_) return Status::Ok();
  return Status(Code::kAborted, "another coordinator has opened the database (generation " +
                                    std::to_string(generation) + ", ours is " +
                                    std::to_string(generation_) + "); stop one of them");
}

Status SqliteStore::WriteRows(const Persist& persist) {
  for (const core::Job& job : persist.jobs) {
    TANDEM_RETURN_IF_ERROR(writes_.job->Bind(1, job.uid)
                               .Bind(2, JobToJson(job))
                               .BindBlob(3, job.spec.get())
                               .BindBlob(4, job.report.get())
                               .Run());
  }
  for (const core::JobEvent& event : persist.events) {
    TANDEM_RETURN_IF_ERROR(
        writes_.event->Bind(1, event.revision).Bind(2, EventToJson(event)).Run());
  }
  for (const core::RequestRecord& request : persist.requests) {
    TANDEM_RETURN_IF_ERROR(
        writes_.request->Bind(1, request.id).Bind(2, RequestToJson(request)).Run());
  }
  for (const core::Worker& worker : persist.workers) {
    TANDEM_RETURN_IF_ERROR(
        writes_.worker->Bind(1, worker.name).Bind(2, WorkerToJson(worker)).Run());
  }
  if (persist.events.empty()) return Status::Ok();
  return writes_.revision->Bind(1, persist.events.back().revision).Run();
}

Status SqliteStore::Forget(const Persist& persist) {
  for (const std::string& id : persist.forgotten_requests) {
    TANDEM_RETURN_IF_ERROR(writes_.forget_request->Bind(1, id).Run());
  }
  for (const core::WorkerName& name : persist.forgotten_workers) {
    TANDEM_RETURN_IF_ERROR(writes_.forget_worker->Bind(1, name).Run());
  }
  if (persist.drop_events_below == 0) return Status::Ok();
  return writes_.drop_events->Bind(1, persist.drop_events_below).Run();
}

Status SqliteStore::Write(const Persist& persist) {
  TANDEM_RETURN_IF_ERROR(WriteRows(persist));
  return Forget(persist);
}

Status SqliteStore::InTransaction(const std::function<Status()>& write) {
  Status status = writes_.begin->Run();
  if (!status.ok()) return status;
  status = CheckGeneration();
  if (status.ok()) status = write();
  if (status.ok()) status = writes_.commit->Run();
  // SQLite may have rolled back by itself, then this fails; `status` says what counts.
  if (!status.ok()) static_cast<void>(writes_.rollback->Run());
  return status;
}

Status SqliteStore::Commit(const std::vector<const Persist*>& batch) {
  if (!failure_.ok()) return failure_;
  bool is_empty = true;
  for (const Persist* persist : batch) is_empty = is_empty && persist->empty();
  if (is_empty) return Status::Ok();
  const auto write_all = [&]() -> Status {
    for (const Persist* persist : batch) TANDEM_RETURN_IF_ERROR(Write(*persist));
    return Status::Ok();
  };
  failure_ = InTransaction(write_all).WithContext(path_);
  return failure_;
}

Status SqliteStore::Recover() {
  if (failure_.ok() || failure_.code() == Code::kDataLoss) return failure_;  // damage stays
  TANDEM_RETURN_IF_ERROR(InTransaction([this] { return writes_.trial->Run(); }));
  failure_ = Status::Ok();
  return failure_;
}

// --- Opening

Status Prepare(SqliteConnection& connection, const char* sql, Statement* statement) {
  TANDEM_ASSIGN_OR_RETURN(*statement, connection.Prepare(sql));
  return Status::Ok();
}

Result<Writes> PrepareWrites(SqliteConnection& connection) {
  Writes w;
  const std::pair<Statement*, const char*> all[] = {
      {&w.begin, "BEGIN IMMEDIATE"},
      {&w.commit, "COMMIT"},
      {&w.rollback, "ROLLBACK"},
      {&w.generation, "SELECT value FROM meta WHERE key='generation'"},
      {&w.revision, "UPDATE meta SET value=?1 WHERE key='revision'"},
      {&w.trial, "UPDATE meta SET value=value WHERE key='revision'"},
      {&w.job, "INSERT OR REPLACE INTO jobs VALUES (?1, ?2, ?3, ?4)"},
      {&w.event, "INSERT INTO events VALUES (?1, ?2)"},
      {&w.request, "INSERT OR REPLACE INTO requests VALUES (?1, ?2)"},
      {&w.worker, "INSERT OR REPLACE INTO workers VALUES (?1, ?2)"},
      {&w.forget_request, "DELETE FROM requests WHERE id=?1"},
      {&w.forget_worker, "DELETE FROM workers WHERE name=?1"},
      {&w.drop_events, "DELETE FROM events WHERE revision < ?1"},
  };
  for (const auto& [statement, sql] : all) {
    TANDEM_RETURN_IF_ERROR(Prepare(connection, sql, statement));
  }
  return w;
}

// A new file gets the schema; any other must be ours, of this version and whole.
Status CheckFile(SqliteConnection& connection) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t tables,
                          connection.QueryNumber("SELECT count(*) FROM sqlite_master"));
  TANDEM_ASSIGN_OR_RETURN(const int64_t application,
                          connection.QueryNumber("PRAGMA application_id"));
  if (tables == 0 && application == 0) {
    return connection.Execute(
        "BEGIN IMMEDIATE; PRAGMA application_id=" + std::to_string(kApplicationId) +
        "; PRAGMA user_version=" + std::to_string(kSchemaVersion) + ";" + kSchema + "COMMIT;");
  }
  if (application != kApplicationId) {
    return FailedPrecondition("this is a database of another program; name another state folder");
  }
  TANDEM_ASSIGN_OR_RETURN(const int64_t version, connection.QueryNumber("PRAGMA user_version"));
  if (version != kSchemaVersion) {
    return FailedPrecondition("the database has schema " + std::to_string(version) +
                              ", this program knows " + std::to_string(kSchemaVersion) +
                              "; use the version of Tandem that wrote it");
  }
  TANDEM_ASSIGN_OR_RETURN(const std::string check, connection.QueryText("PRAGMA quick_check(1)"));
  if (check == "ok") return Status::Ok();
  return DataLoss("the database is damaged (" + check + "); restore it from a backup");
}

Result<int64_t> RaiseGeneration(SqliteConnection& connection) {
  TANDEM_RETURN_IF_ERROR(
      connection.Execute("UPDATE meta SET value=value+1 WHERE key='generation'"));
  return connection.QueryNumber("SELECT value FROM meta WHERE key='generation'");
}

Result<std::unique_ptr<Store>> Open(const std::string& path) {
  TANDEM_ASSIGN_OR_RETURN(auto connection, SqliteConnection::Open(path));
  TANDEM_RETURN_IF_ERROR(CheckFile(*connection));
  TANDEM_RETURN_IF_ERROR(connection->Execute("PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF"));
  TANDEM_ASSIGN_OR_RETURN(const std::string mode, connection->QueryText("PRAGMA journal_mode=WAL"));
  if (mode != "wal") {
    return FailedPrecondition("SQLite refuses write-ahead logging here (mode " + mode +
                              "); put the state folder on a local disk");
  }
  TANDEM_ASSIGN_OR_RETURN(const int64_t generation, RaiseGeneration(*connection));
  TANDEM_ASSIGN_OR_RETURN(Writes writes, PrepareWrites(*connection));
  return std::unique_ptr<Store>(
      std::make_unique<SqliteStore>(path, std::move(connection), generation, std::move(writes)));
}

}  // namespace

Result<std::unique_ptr<Store>> OpenSqliteStore(const std::string& path) {
  Result<std::unique_ptr<Store>> store = Open(path);
  if (!store.ok()) return store.status().WithContext(path);
  return store;
}

}  // namespace tandem::store
