// Any protobuf message as JSON for people and digests: proto field names, numbers as numbers
// (protobuf's own printer writes 64-bit integers as text), timestamps as
// "2026-11-24T17:35:00.000Z", JOB_STATE_RUNNING as "RUNNING". Fields that know whether they were
// set appear when they were; the others always, so that readers find a 0; lists and maps when not
// empty. Keys sorted. Pure.
#pragma once

#include <nlohmann/json.hpp>

namespace google::protobuf {
class FieldDescriptor;
class Message;
}  // namespace google::protobuf

namespace tandem {

nlohmann::json ProtoToJson(const google::protobuf::Message& message);

// One field, set or not: a list for repeated fields, an object for maps. NaN and infinities become
// null.
nlohmann::json ProtoFieldToJson(const google::protobuf::Message& message,
                                const google::protobuf::FieldDescriptor& field);

}  // namespace tandem
