// A spec as text: canonical JSON for digests, YAML for people.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/digest.h"
#include "base/log.h"
#include "spec/fields.h"
#include "spec/json.h"
#include "spec/spec.h"

namespace tandem {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

bool IsPlainWord(const std::string& text) {
  const std::string letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  if (text.empty() || (letters + "/").find(text[0]) == std::string::npos) return false;
  if (text.find_first_not_of(letters + "0123456789_./-") != std::string::npos) return false;
  static const std::set<std::string> kOtherMeaning = {"true",  "True", "TRUE", "false", "False",
                                                      "FALSE", "null", "Null", "NULL",  "yes",
                                                      "no",    "on",   "off",  "y",     "n"};
  return !kOtherMeaning.contains(text);
}

std::string YamlScalar(const nlohmann::json& value) {
  if (!value.is_string())
    return value.is_number_float() ? NumberText(value.get<double>()) : value.dump();
  const auto text = value.get<std::string>();
  return IsPlainWord(text) ? text : JsonQuote(text);
}

void AppendGroup(const Message& message, const std::string& indent, std::string& yaml);

void AppendField(const FieldDescriptor& field, const Message& message, const std::string& indent,
                 std::string& yaml) {
  const auto* reflection = message.GetReflection();
  const std::string head = indent + field.name() + ":";
  if (field.type() != FieldDescriptor::TYPE_MESSAGE) {
    const auto value = ProtoFieldToJson(message, field);
    if (!field.is_repeated()) {
      yaml += head + " " + YamlScalar(value) + "\n";
      return;
    }
    std::string items;
    for (const auto& item : value) items += (items.empty() ? "" : ", ") + YamlScalar(item);
    yaml += head + " [" + items + "]\n";
    return;
  }
  if (!field.is_repeated()) {
    std::string body;
    AppendGroup(reflection->GetMessage(message, &field), indent + "  ", body);
    yaml += head + (body.empty() ? " {}\n" : "\n" + body);
    return;
  }
  yaml += head + "\n";
  for (int i = 0; i < reflection->FieldSize(message, &field); ++i) {
    std::string body;
    AppendGroup(reflection->GetRepeatedMessage(message, &field, i), indent + "    ", body);
    yaml += body.empty() ? indent + "  - {}\n" : indent + "  - " + body.substr(indent.size() + 4);
  }
}

void AppendGroup(const Message& message, const std::string& indent, std::string& yaml) {
  const auto* reflection = message.GetReflection();
  const auto* type = message.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto& field = *type->field(i);
    const bool set = field.is_repeated() ? reflection->FieldSize(message, &field) > 0
                                         : reflection->HasField(message, &field);
    if (set) AppendField(field, message, indent, yaml);
  }
}

}  // namespace

std::string CanonicalJson(const v1::JobSpec& spec) {
  return ProtoToJson(spec).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string SpecSha256(const v1::JobSpec& spec) {
  v1::JobSpec resolved = Resolve(spec);
  resolved.clear_name();
  resolved.clear_project();
  resolved.clear_priority();
  return Sha256Hex(CanonicalJson(resolved));
}

std::string SpecToYaml(const v1::JobSpec& spec) {
  std::string yaml;
  AppendGroup(spec, "", yaml);
  return yaml;
}

}  // namespace tandem
