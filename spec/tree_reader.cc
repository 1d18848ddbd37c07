#include "spec/tree_reader.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>

#include "base/log.h"
#include "spec/fields.h"
#include "spec/nearest.h"

namespace tandem {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Kind = YamlNode::Kind;

std::string Child(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

std::string ShapeWords(const YamlNode& node) {
  switch (node.kind) {
    case Kind::kNull:
      return "empty";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a group of fields";
    default:
      return JsonQuote(node.scalar.substr(0, 100));
  }
}

std::vector<std::string> FieldNames(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

bool LooksLikeNumber(const std::string& text) {
  return !text.empty() && text.find_first_not_of("+-.0123456789eE_") == std::string::npos &&
         text.find_first_of("0123456789") != std::string::npos;
}

bool LooksLikeFlag(const std::string& text) {
  static const std::set<std::string> kFlags = {"true", "false", "True", "False",
                                               "TRUE", "FALSE", "yes",  "no"};
  return kFlags.contains(text);
}

std::optional<double> ReadReal(const std::string& text) {
  if (text.starts_with("+-")) return std::nullopt;  // from_chars takes the second sign
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const char* end = text.data() + text.size();
  double value = 0;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

bool IsInteger(const std::string& text) {
  const size_t sign = text.starts_with('+') || text.starts_with('-') ? 1 : 0;
  return text.size() > sign && text.find_first_not_of("0123456789", sign) == std::string::npos;
}

class SpecReader {
 public:
  SpecReader(const std::string& base_dir, ParseOutcome& outcome)
      : base_dir_(base_dir), outcome_(outcome) {}

  // Fields whose value could not be taken over.
  const std::vector<std::string>& unreadable() const { return unreadable_; }

  void ReadGroup(const YamlNode& node, const std::string& path, Message& message) {
    std::map<std::string, int> seen;
    for (const auto& entry : node.entries) {
      const std::string child = Child(path, entry.key);
      const auto* field = message.GetDescriptor()->FindFieldByName(entry.key);
      if (field == nullptr) {
        ReportUnknown(entry, path, *message.GetDescriptor());
        continue;
      }
      if (const auto [first, is_new] = seen.emplace(entry.key, entry.line); !is_new) {
        outcome_.violations.push_back({child,
                                       child + " is given twice, first in line " +
                                           std::to_string(first->second) + "; keep one",
                                       entry.line});
        continue;
      }
      outcome_.parsed.lines[child] = entry.line;
      ReadField(entry.value, child, *field, message);
    }
  }

 private:
  void Report(const std::string& path, const std::string& text, int line) {
    outcome_.violations.push_back({path, path + " " + text, line});
    unreadable_.push_back(path);
  }

  void ReportUnknown(const YamlEntry& entry, const std::string& path, const Descriptor& type) {
    const std::string child = Child(path, entry.key.substr(0, 100));
    if (entry.key == "<<") {
      outcome_.violations.push_back(
          {child, "merge key << is not allowed here; write the fields out", entry.line});
      return;
    }
    if (entry.key.empty()) return;  // reported by the tree
    if (IsLaterField(child)) {
      Report(child, "is not available in this version; delete it", entry.line);
      return;
    }
    std::string hint = "; allowed here: ";
    for (const auto& name : FieldNames(type)) hint += name + ", ";
    hint.resize(hint.size() - 2);
    if (const std::string near = NearestName(entry.key, FieldNames(type)); !near.empty()) {
      hint = "; did you mean " + Child(path, near) + "?";
    } else if (const std::string home = HomeOf(entry.key); !home.empty()) {
      hint = "; did you mean " + home + "?";
    }
    Report(child, "is not a field" + hint, entry.line);
  }

  // The one field of this name elsewhere in the tree: `window` at the top belongs to
  // attention.window.
  static std::string HomeOf(const std::string& name) {
    std::string home;
    for (const auto& field : Fields()) {
      if (!field.path.ends_with("." + name)) continue;
      if (!home.empty()) return "";
      home = field.path;
    }
    return home;
  }

  void ReadField(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                 Message& message) {
    if (node.kind == Kind::kRefused) return;
    if (node.kind == Kind::kNull) {
      const bool is_group = field.type() == FieldDescriptor::TYPE_MESSAGE && !field.is_repeated();
      Report(path,
             is_group ? "is empty; give its fields, or {} for the defaults, or delete it"
                      : "is empty; give it a value or delete it",
             node.line);
      return;
    }
    if (field.is_repeated()) {
      ReadList(node, path, field, message);
    } else if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
      ReadMessage(node, path, *message.GetReflection()->MutableMessage(&message, &field));
    } else {
      ReadScalar(node, path, field, message);
    }
  }

  void ReadMessage(const YamlNode& node, const std::string& path, Message& message) {
    if (node.kind != Kind::kMap) {
      Report(path,
             "is " + ShapeWords(node) + "; must be a group of fields, such as `" +
                 message.GetDescriptor()->field(0)->name() + ": ...` on lines of its own",
             node.line);
      return;
    }
    ReadGroup(node, path, message);
  }

  void ReadList(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                Message& message) {
    if (node.kind != Kind::kList) {
      const bool is_message = field.type() == FieldDescriptor::TYPE_MESSAGE;
      const std::string example =
          node.kind == Kind::kScalar && !is_message ? ", such as [" + node.scalar + "]" : "";
      Report(path, "is " + ShapeWords(node) + "; must be a list" + example, node.line);
      return;
    }
    if (node.items.empty())
      Report(path, "is an empty list; give it at least one item or delete it", node.line);
    const size_t limit = FindField(path)->max_items;
    if (node.items.size() > limit) {
      Report(path,
             "has " + std::to_string(node.items.size()) + " items; at most " +
                 std::to_string(limit) + " are allowed",
             node.line);
      return;
    }
    for (size_t i = 0; i < node.items.size(); ++i) {
      const std::string item_path = path + "[" + std::to_string(i) + "]";
      outcome_.parsed.lines[item_path] = node.items[i].line;
      ReadItem(node.items[i], item_path, field, message);
    }
  }

  void ReadItem(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                Message& message) {
    if (node.kind == Kind::kRefused) return;
    if (node.kind == Kind::kNull) {
      Report(path, "is empty; give it a value or delete it", node.line);
    } else if (field.type() == FieldDescriptor::TYPE_MESSAGE) {
      if (node.kind == Kind::kMap && node.entries.size() > 1) {
        Report(path,
               "holds " + std::to_string(node.entries.size()) +
                   " stages; start each stage with a '-' of its own",
               node.line);
        return;
      }
      ReadMessage(node, path, *message.GetReflection()->AddMessage(&message, &field));
    } else {
      ReadScalar(node, path, field, message);
    }
  }

  void ReadScalar(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                  Message& message) {
    if (node.kind != Kind::kScalar) {
      Report(path, "is " + ShapeWords(node) + "; must be " + ScalarWords(field), node.line);
      return;
    }
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return ReadText(node, path, field, message);
      case FieldDescriptor::CPPTYPE_BOOL:
        return ReadFlag(node, path, field, message);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return ReadNumber(node, path, field, message);
      default:
        return ReadInteger(node, path, field, message);
    }
  }

  static std::string ScalarWords(const FieldDescriptor& field) {
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return "text";
      case FieldDescriptor::CPPTYPE_BOOL:
        return "true or false";
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return "a number";
      default:
        return "an integer";
    }
  }

  void ReadText(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                Message& message) {
    if (!node.quoted && (LooksLikeNumber(node.scalar) || LooksLikeFlag(node.scalar))) {
      const std::string what = LooksLikeNumber(node.scalar) ? "the number " : "the flag ";
      Report(path, "is " + what + node.scalar + "; must be text: put it in quotes", node.line);
      return;
    }
    std::string text = node.scalar;
    const Field* row = FindField(path);
    if (row->is_path && !text.empty() && text.find("://") == std::string::npos && text[0] != '~') {
      text = (std::filesystem::path(base_dir_) / text).lexically_normal().string();
    }
    const auto* reflection = message.GetReflection();
    if (field.is_repeated()) return reflection->AddString(&message, &field, text);
    reflection->SetString(&message, &field, text);
  }

  void ReadFlag(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                Message& message) {
    if (node.quoted || (node.scalar != "true" && node.scalar != "false")) {
      Report(path, "is " + ShapeWords(node) + "; must be true or false, without quotes", node.line);
      return;
    }
    message.GetReflection()->SetBool(&message, &field, node.scalar == "true");
  }

  void ReadNumber(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                  Message& message) {
    const auto value = ReadReal(node.scalar);
    if (node.quoted || !value) return ReportNumber(node, path, "a number");
    const auto* reflection = message.GetReflection();
    if (field.is_repeated()) return reflection->AddDouble(&message, &field, *value);
    reflection->SetDouble(&message, &field, *value);
  }

  void ReadInteger(const YamlNode& node, const std::string& path, const FieldDescriptor& field,
                   Message& message) {
    if (node.quoted || !IsInteger(node.scalar)) return ReportNumber(node, path, "an integer");
    // What does not fit the type is out of the field's range as well; both are said in the range's
    // words.
    const Field& row = *FindField(path);
    int64_t value = 0;
    const char* begin = node.scalar.data() + (node.scalar[0] == '+' ? 1 : 0);
    const bool fits =
        std::from_chars(begin, node.scalar.data() + node.scalar.size(), value).ec == std::errc();
    const auto real = static_cast<double>(value);
    const bool in_type =
        field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 || (real >= row.min && real <= row.max);
    if (!fits || !in_type) {
      Report(
          path,
          "is " + node.scalar.substr(0, 40) + "; must be " + AllowedWords(row) + DefaultAdvice(row),
          node.line);
      return;
    }
    const auto* reflection = message.GetReflection();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return reflection->SetInt32(&message, &field, static_cast<int32_t>(value));
      case FieldDescriptor::CPPTYPE_UINT64:
        return reflection->SetUInt64(&message, &field, static_cast<uint64_t>(value));
      default:
        if (field.is_repeated()) return reflection->AddInt64(&message, &field, value);
        return reflection->SetInt64(&message, &field, value);
    }
  }

  void ReportNumber(const YamlNode& node, const std::string& path, const std::string& wanted) {
    const bool only_quotes =
        node.quoted &&
        (wanted == "an integer" ? IsInteger(node.scalar) : ReadReal(node.scalar).has_value());
    Report(path,
           "is " + ShapeWords(node) + "; must be " + wanted +
               (only_quotes ? ": take off the quotes" : ""),
           node.line);
  }

  const std::string base_dir_;
  ParseOutcome& outcome_;
  std::vector<std::string> unreadable_;
};

}  // namespace

std::vector<std::string> ReadTree(const YamlNode& root, const std::string& base_dir,
                                  ParseOutcome& outcome) {
  if (root.kind != Kind::kMap) {
    const std::string what = root.kind == Kind::kNull ? "is empty" : "holds " + ShapeWords(root);
    outcome.violations.push_back(
        {"",
         "the job file " + what +
             "; must be a mapping, fields such as `model:`; `tandem explain` lists them",
         root.line});
    return {};
  }
  SpecReader reader(base_dir, outcome);
  reader.ReadGroup(root, "", outcome.parsed.spec);
  return reader.unreadable();
}

}  // namespace tandem
