// Values: each field against its row of the table, then the rules between fields (spec/rules.h).
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>

#include "spec/fields.h"
#include "spec/json.h"
#include "spec/nearest.h"
#include "spec/rules.h"
#include "spec/spec.h"
#include "spec/violation_list.h"

namespace tandem {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kMaxTextBytes = 4096;
constexpr size_t kMaxNameBytes = 63;

void CheckNumber(const Field& row, const std::string& path, double value, ViolationList& out) {
  const bool inside = value <= row.max && (row.min_open ? value > row.min : value >= row.min);
  if (!inside)
    out.Add(path,
            "is " + NumberText(value) + "; must be " + AllowedWords(row) + DefaultAdvice(row));
}

void CheckChoice(const Field& row, const std::string& path, const std::string& value,
                 ViolationList& out) {
  if (std::ranges::find(row.allowed, value) != row.allowed.end()) return;
  std::vector<std::string> names(row.allowed.begin(), row.allowed.end());
  if (std::ranges::find(row.later, value) != row.later.end()) {
    std::string list;
    for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
    out.Add(path,
            "is " + Quoted(value) + ", which is not available in this version; available: " + list);
    return;
  }
  const std::string near = NearestName(value, names);
  out.Add(path, "is " + Quoted(value) + "; must be " + AllowedWords(row) +
                    (near.empty() ? DefaultAdvice(row) : "; did you mean " + near + "?"));
}

void CheckPath(const std::string& path, const std::string& value, ViolationList& out) {
  if (value.find("://") != std::string::npos) {
    out.Add(path, "is " + Quoted(value) + "; must be a path on the worker's disk: fetch it first");
  } else if (value.starts_with('~')) {
    out.Add(path, "is " + Quoted(value) + "; ~ is not expanded: write the whole path");
  } else if (!value.starts_with('/')) {
    out.Add(path, "is " + Quoted(value) +
                      "; must be an absolute path (only in a job file may it be relative)");
  }
}

void CheckName(const std::string& path, const std::string& value, ViolationList& out) {
  const bool letters =
      value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
  const bool ends = value.front() >= 'a' && value.front() <= 'z' && value.back() != '-';
  if (letters && ends && value.size() <= kMaxNameBytes) return;
  out.Add(
      path,
      "is " + Quoted(value) +
          "; must be 1 to 63 lower-case letters, digits and '-', a letter first and no '-' last");
}

void CheckText(const Field& row, const std::string& path, const std::string& value,
               ViolationList& out) {
  const bool control = std::ranges::any_of(
      value, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  if (value.empty()) {
    out.Add(path,
            row.required ? "is empty; give it a value" : "is empty; give it a value or delete it");
  } else if (value.size() > kMaxTextBytes) {
    out.Add(path, "has " + std::to_string(value.size()) + " bytes; at most " +
                      std::to_string(kMaxTextBytes) + " are allowed");
  } else if (control) {
    out.Add(path, "is " + Quoted(value) + "; control characters are not allowed");
  } else if (!row.allowed.empty()) {
    CheckChoice(row, path, value, out);
  } else if (row.is_path) {
    CheckPath(path, value, out);
  } else if (path == "name" || path == "project") {
    CheckName(path, value, out);
  }
}

// One value of a field, or one item of a list (index >= 0).
void CheckValue(const Field& row, const std::string& path, const FieldDescriptor& field,
                const Message& message, int index, ViolationList& out) {
  const auto* reflection = message.GetReflection();
  const bool item = index >= 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return CheckText(row, path,
                       item ? reflection->GetRepeatedString(message, &field, index)
                            : reflection->GetString(message, &field),
                       out);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return CheckNumber(row, path,
                         item ? reflection->GetRepeatedDouble(message, &field, index)
                              : reflection->GetDouble(message, &field),
                         out);
    case FieldDescriptor::CPPTYPE_INT64:
      return CheckNumber(
          row, path,
          static_cast<double>(item ? reflection->GetRepeatedInt64(message, &field, index)
                                   : reflection->GetInt64(message, &field)),
          out);
    case FieldDescriptor::CPPTYPE_INT32:
      return CheckNumber(row, path, reflection->GetInt32(message, &field), out);
    case FieldDescriptor::CPPTYPE_UINT64:
      return CheckNumber(row, path, static_cast<double>(reflection->GetUInt64(message, &field)),
                         out);
    default:
      return;
  }
}

void CheckFields(const std::string& path, const Message& message, ViolationList& out);

// Fields that wait for what they steer take their default only, as resolved specs bring it.
void CheckBuilt(const Field& row, const std::string& path, const FieldDescriptor& field,
                const Message& message, ViolationList& out) {
  const auto value = ProtoFieldToJson(message, field);
  const std::string text = value.is_string()   ? value.get<std::string>()
                           : value.is_number() ? NumberText(value.get<double>())
                                               : value.dump();
  if (text != row.default_value)
    out.Add(path,
            "is " + text.substr(0, 100) + ", which is not available in this version; delete it");
}

void CheckField(const std::string& path, const FieldDescriptor& field, const Message& message,
                ViolationList& out) {
  const Field& row = *FindField(path);
  const auto* reflection = message.GetReflection();
  const bool is_group = field.type() == FieldDescriptor::TYPE_MESSAGE;
  if (!field.is_repeated()) {
    if (!reflection->HasField(message, &field)) return;
    if (is_group) return CheckFields(path, reflection->GetMessage(message, &field), out);
    if (row.not_built) return CheckBuilt(row, path, field, message, out);
    return CheckValue(row, path, field, message, -1, out);
  }
  const int size = reflection->FieldSize(message, &field);
  if (row.not_built && size > 0) return CheckBuilt(row, path, field, message, out);
  if (static_cast<size_t>(size) > row.max_items) {
    return out.Add(path, "has " + std::to_string(size) + " items; at most " +
                             std::to_string(row.max_items) + " are allowed");
  }
  for (int i = 0; i < size; ++i) {
    if (is_group)
      CheckFields(ItemPath(path, i), reflection->GetRepeatedMessage(message, &field, i), out);
    if (!is_group) CheckValue(row, ItemPath(path, i), field, message, i, out);
  }
}

void CheckFields(const std::string& path, const Message& message, ViolationList& out) {
  const auto* type = message.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const std::string& name = type->field(i)->name();
    CheckField(path.empty() ? name : path + "." + name, *type->field(i), message, out);
  }
}

}  // namespace

std::vector<Violation> Validate(const v1::JobSpec& spec) {
  ViolationList out;
  CheckFields("", spec, out);
  CheckPresence(spec, out);
  CheckDataFiles(spec.data(), out);
  // Defaults take part in the rules: a window of 2000 is too long for the default sequence.
  const v1::JobSpec resolved = Resolve(spec);
  CheckAttention(resolved, out);
  CheckDevice(resolved, out);
  CheckStages(resolved, spec.stages_size() == 0, out);
  CheckEvaluate(resolved, out);
  CheckExport(resolved, out);
  return out.Take();
}

}  // namespace tandem
