// SqliteConnection, SqliteStatement: SQLite's C interface with owners and Status. Confined to one
// thread. Knows nothing of Tandem; not for general use, only what the store needs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace tandem::store {

class SqliteStatement {
 public:
  ~SqliteStatement();
  SqliteStatement(const SqliteStatement&) = delete;
  SqliteStatement& operator=(const SqliteStatement&) = delete;

  // Parameters from 1, before Run or Step. Texts and blobs are copied.
  SqliteStatement& Bind(int index, int64_t number);
  SqliteStatement& Bind(int index, const std::string& text);
  SqliteStatement& BindBlob(int index, const std::string* bytes);  // null: NULL
  // To the end, ignoring rows; then ready to be bound again.
  Status Run();
  // Calls `row` for each row, until one fails; then ready to be bound again.
  Status ForEachRow(const std::function<Status(const SqliteStatement&)>& row);
  int64_t Number(int column) const;
  std::string Text(int column) const;  // texts and blobs
  bool IsNull(int column) const;

 private:
  friend class SqliteConnection;
  SqliteStatement(sqlite3* database, sqlite3_stmt* statement)
      : database_(database), statement_(statement) {}
  sqlite3* database_;
  sqlite3_stmt* statement_;
};

class SqliteConnection {
 public:
  // Opens or creates the file.
  static Result<std::unique_ptr<SqliteConnection>> Open(const std::string& path);
  ~SqliteConnection();
  SqliteConnection(const SqliteConnection&) = delete;
  SqliteConnection& operator=(const SqliteConnection&) = delete;

  // One or more statements without parameters.
  Status Execute(const std::string& sql);
  Result<std::unique_ptr<SqliteStatement>> Prepare(const std::string& sql);
  // The first column of the first row; kNotFound when there is no row.
  Result<int64_t> QueryNumber(const std::string& sql);
  Result<std::string> QueryText(const std::string& sql);

 private:
  explicit SqliteConnection(sqlite3* database) : database_(database) {}
  sqlite3* database_;
};

}  // namespace tandem::store
