// Errors on the wire: a Status of ours as gRPC's, with all violations at once.
//
// The message carries one line per violation, for people and simple clients; the details carry
// google.rpc.Status with google.rpc.BadRequest and ErrorInfo, which grpcio-status and the like
// decode. Both are cut to what fits into a trailer (gRPC refuses metadata over 8 KiB as a whole).
// Pure; any thread.
#pragma once

#include <grpcpp/support/status.h>

#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tandem::service {

// A field's path and what is wrong with it.
using FieldViolation = std::pair<std::string, std::string>;

grpc::Status ToGrpc(const Status& status);
// INVALID_ARGUMENT. violations must not be empty.
grpc::Status ToGrpc(const std::vector<FieldViolation>& violations);

}  // namespace tandem::service
