// SqliteStore: the store in one SQLite file (WAL, synchronous=FULL).
//
// Opening raises the database's generation; a former coordinator that still has the file open fails
// its next Commit (kAborted), so two of them can never both write. A damaged file, a foreign file
// or a newer schema is refused with kDataLoss or kFailedPrecondition and left as it is.
//
//   meta(key, value)                 generation, and the revision of the newest event
//   jobs(uid, body, spec, report)    body: row_json.h; spec and report: opaque bytes
//   events(revision, body)
//   requests(id, body)
//   workers(name, body)
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "coordinator/store/store.h"

namespace tandem::store {

inline constexpr int kSchemaVersion = 1;

// Creates the file if it is absent; the folder must exist.
Result<std::unique_ptr<Store>> OpenSqliteStore(const std::string& path);

}  // namespace tandem::store
