#include "coordinator/store/sqlite_connection.h"

#include <sqlite3.h>

#include <utility>

namespace tandem::store {
namespace {

Status Failure(sqlite3* database, int code) {
  const std::string message = std::string("SQLite: ") + sqlite3_errmsg(database);
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return DataLoss(message);
    case SQLITE_FULL:
      return ResourceExhausted(message + "; make room on its disk");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Status(Code::kAborted, message);
    default:
      return Unavailable(message);
  }
}

}  // namespace

SqliteStatement::~SqliteStatement() {
  sqlite3_finalize(statement_);
}

SqliteStatement& SqliteStatement::Bind(int index, int64_t number) {
  TANDEM_CHECK(sqlite3_bind_int64(statement_, index, number) == SQLITE_OK);
  return *this;
}

SqliteStatement& SqliteStatement::Bind(int index, const std::string& text) {
  TANDEM_CHECK(sqlite3_bind_text64(statement_, index, text.data(), text.size(), SQLITE_TRANSIENT,
                                   SQLITE_UTF8) == SQLITE_OK);
  return *this;
}

SqliteStatement& SqliteStatement::BindBlob(int index, const std::string* bytes) {
  const int code = bytes == nullptr ? sqlite3_bind_null(statement_, index)
                                    : sqlite3_bind_blob64(statement_, index, bytes->data(),
                                                          bytes->size(), SQLITE_TRANSIENT);
  TANDEM_CHECK(code == SQLITE_OK);
  return *this;
}

Status SqliteStatement::Run() {
  return ForEachRow([](const SqliteStatement&) { return Status::Ok(); });
}

Status SqliteStatement::ForEachRow(const std::function<Status(const SqliteStatement&)>& row) {
  Status status;
  int code = SQLITE_ROW;
  while (status.ok() && (code = sqlite3_step(statement_)) == SQLITE_ROW) status = row(*this);
  if (status.ok() && code != SQLITE_DONE) status = Failure(database_, code);
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
  return status;
}

int64_t SqliteStatement::Number(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::string SqliteStatement::Text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const auto size = static_cast<size_t>(sqlite3_column_bytes(statement_, column));
  return bytes == nullptr ? "" : std::string(static_cast<const char*>(bytes), size);
}

bool SqliteStatement::IsNull(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Result<std::unique_ptr<SqliteConnection>> SqliteConnection::Open(const std::string& path) {
  sqlite3* database = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &database, flags, nullptr);
  std::unique_ptr<SqliteConnection> connection(new SqliteConnection(database));
  if (code != SQLITE_OK) return Failure(database, code).WithContext(path);
  sqlite3_extended_result_codes(database, 1);
  sqlite3_busy_timeout(database, 2'000);
  return connection;
}

SqliteConnection::~SqliteConnection() {
  sqlite3_close_v2(database_);
}

Status SqliteConnection::Execute(const std::string& sql) {
  const int code = sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? Status::Ok() : Failure(database_, code);
}

Result<std::unique_ptr<SqliteStatement>> SqliteConnection::Prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(database_, sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT,
                                      &statement, nullptr);
  if (code != SQLITE_OK) return Failure(database_, code);
  return std::unique_ptr<SqliteStatement>(new SqliteStatement(database_, statement));
}

Result<int64_t> SqliteConnection::QueryNumber(const std::string& sql) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, QueryText(sql));
  return std::strtoll(text.c_str(), nullptr, 10);
}

Result<std::string> SqliteConnection::QueryText(const std::string& sql) {
  TANDEM_ASSIGN_OR_RETURN(auto statement, Prepare(sql));
  std::string text;
  bool found = false;
  TANDEM_RETURN_IF_ERROR(statement->ForEachRow([&](const SqliteStatement& row) {
    if (!std::exchange(found, true)) text = row.Text(0);
    return Status::Ok();
  }));
  if (!found) return NotFound("no row: " + sql);
  return text;
}

}  // namespace tandem::store
