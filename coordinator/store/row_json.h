// Row bodies: the durable members of a job, event, request or worker as JSON, one text per row.
//
// Why JSON and not a column each: rows are only ever read whole, at start; a new member is a new
// key with a default, no migration; and a person can read the database with sqlite3. Opaque blobs
// (spec, report) have columns of their own. Pure. Parsing is strict about types: what does not fit
// is kDataLoss and names the key.
#pragma once

#include <string>

#include "base/status.h"
#include "coordinator/core/effect.h"
#include "coordinator/core/state.h"

namespace tandem::store {

// Without spec and report.
std::string JobToJson(const core::Job& job);
Result<core::Job> JobFromJson(const std::string& json);

std::string EventToJson(const core::JobEvent& event);
Result<core::JobEvent> EventFromJson(const std::string& json);

std::string RequestToJson(const core::RequestRecord& request);
Result<core::RequestRecord> RequestFromJson(const std::string& json);

std::string WorkerToJson(const core::Worker& worker);
Result<core::Worker> WorkerFromJson(const std::string& json);

}  // namespace tandem::store
