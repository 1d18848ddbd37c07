#include "spec/json.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/timestamp.pb.h>

#include <cmath>

#include "base/clock.h"

namespace tandem {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::json;

// JOB_STATE_RUNNING -> RUNNING: what stands before UNSPECIFIED in the first value stands before
// all.
std::string EnumText(const google::protobuf::EnumValueDescriptor& value) {
  const std::string zero = value.type()->value(0)->name();
  const std::string unset = "UNSPECIFIED";
  if (!zero.ends_with(unset)) return value.name();
  const std::string prefix = zero.substr(0, zero.size() - unset.size());
  return value.name().starts_with(prefix) ? value.name().substr(prefix.size()) : value.name();
}

json Real(double value) {
  return std::isfinite(value) ? json(value) : json(nullptr);
}

json Single(const Message& m, const FieldDescriptor& f) {
  const auto* r = m.GetReflection();
  switch (f.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return r->GetInt32(m, &f);
    case FieldDescriptor::CPPTYPE_INT64:
      return r->GetInt64(m, &f);
    case FieldDescriptor::CPPTYPE_UINT32:
      return r->GetUInt32(m, &f);
    case FieldDescriptor::CPPTYPE_UINT64:
      return r->GetUInt64(m, &f);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Real(r->GetDouble(m, &f));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return Real(static_cast<double>(r->GetFloat(m, &f)));
    case FieldDescriptor::CPPTYPE_BOOL:
      return r->GetBool(m, &f);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumText(*r->GetEnum(m, &f));
    case FieldDescriptor::CPPTYPE_STRING:
      return r->GetString(m, &f);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ProtoToJson(r->GetMessage(m, &f));
  }
  return nullptr;
}

json Item(const Message& m, const FieldDescriptor& f, int i) {
  const auto* r = m.GetReflection();
  switch (f.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return r->GetRepeatedInt32(m, &f, i);
    case FieldDescriptor::CPPTYPE_INT64:
      return r->GetRepeatedInt64(m, &f, i);
    case FieldDescriptor::CPPTYPE_UINT32:
      return r->GetRepeatedUInt32(m, &f, i);
    case FieldDescriptor::CPPTYPE_UINT64:
      return r->GetRepeatedUInt64(m, &f, i);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Real(r->GetRepeatedDouble(m, &f, i));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return Real(static_cast<double>(r->GetRepeatedFloat(m, &f, i)));
    case FieldDescriptor::CPPTYPE_BOOL:
      return r->GetRepeatedBool(m, &f, i);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumText(*r->GetRepeatedEnum(m, &f, i));
    case FieldDescriptor::CPPTYPE_STRING:
      return r->GetRepeatedString(m, &f, i);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ProtoToJson(r->GetRepeatedMessage(m, &f, i));
  }
  return nullptr;
}

}  // namespace

json ProtoFieldToJson(const Message& message, const FieldDescriptor& field) {
  if (!field.is_repeated()) return Single(message, field);
  const auto* reflection = message.GetReflection();
  const int size = reflection->FieldSize(message, &field);
  if (!field.is_map()) {
    json list = json::array();
    for (int i = 0; i < size; ++i) list.push_back(Item(message, field, i));
    return list;
  }
  json object = json::object();
  const auto* entry_type = field.message_type();
  for (int i = 0; i < size; ++i) {
    const Message& entry = reflection->GetRepeatedMessage(message, &field, i);
    const json key = Single(entry, *entry_type->map_key());
    object[key.is_string() ? key.get<std::string>() : key.dump()] =
        Single(entry, *entry_type->map_value());
  }
  return object;
}

json ProtoToJson(const Message& message) {
  const auto* type = message.GetDescriptor();
  if (type->full_name() == "google.protobuf.Timestamp") {
    google::protobuf::Timestamp time;
    time.CopyFrom(message);
    return FormatUtc(time.seconds() * 1000 + time.nanos() / 1'000'000).text;
  }
  json object = json::object();
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto& field = *type->field(i);
    const bool set = field.is_repeated()
                         ? reflection->FieldSize(message, &field) > 0
                         : !field.has_presence() || reflection->HasField(message, &field);
    if (set) object[field.name()] = ProtoFieldToJson(message, field);
  }
  return object;
}

}  // namespace tandem
