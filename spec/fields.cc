#include "spec/fields.h"

#include <algorithm>
#include <charconv>

namespace tandem {
namespace {

using enum FieldType;

constexpr std::string_view kLaterFields[] = {"parallelism.tensor"};

std::string Join(const std::vector<std::string_view>& items) {
  std::string text;
  for (const auto item : items) text += (text.empty() ? "" : ", ") + std::string(item);
  return text;
}

}  // namespace

std::string TablePath(std::string_view path) {
  std::string plain;
  bool in_index = false;
  for (const char c : path) {
    if (c == '[') in_index = true;
    if (!in_index) plain += c;
    if (c == ']') in_index = false;
  }
  constexpr std::string_view kStages = "stages.";
  return plain.starts_with(kStages) ? plain.substr(kStages.size()) : plain;
}

const Field* FindField(std::string_view path) {
  const std::string wanted = TablePath(path);
  const auto& fields = Fields();
  const auto row = std::ranges::find_if(fields, [&](const Field& f) { return f.path == wanted; });
  return row == fields.end() ? nullptr : &*row;
}

bool IsLaterField(std::string_view path) {
  return std::ranges::find(kLaterFields, TablePath(path)) != std::end(kLaterFields);
}

std::string TypeWords(const Field& field) {
  switch (field.type) {
    case kGroup:
      return "group of fields";
    case kStages:
      return "list of stages";
    case kText:
      return "text";
    case kInteger:
      return "integer";
    case kReal:
      return "number";
    case kFlag:
      return "true or false";
    case kTexts:
      return "list of texts";
    case kIntegers:
      return "list of integers";
    case kReals:
      return "list of numbers";
  }
  return "";
}

std::string AllowedWords(const Field& field) {
  if (!field.allowed.empty()) return "one of " + Join(field.allowed);
  const bool is_number = field.type == kInteger || field.type == kReal || field.type == kIntegers ||
                         field.type == kReals;
  if (!is_number) return "";
  if (field.min_open)
    return "above " + NumberText(field.min) + ", at most " + NumberText(field.max);
  return "in [" + NumberText(field.min) + ", " + NumberText(field.max) + "]";
}

std::string DefaultWords(const Field& field) {
  std::string text(field.default_value.empty() ? field.default_words : field.default_value);
  for (const auto& other : field.recipe_defaults) {
    text += " (" + std::string(other.recipe) + ": " + std::string(other.value) + ")";
  }
  return text;
}

std::string DefaultAdvice(const Field& field) {
  if (field.required || field.path == "recipe" || field.path == "stages") return "";
  return "; delete it to take the default, " + DefaultWords(field);
}

std::string WithoutRows(const std::string& path) {
  const size_t open = path.rfind('[');
  if (open == std::string::npos || open == 0 || !path.ends_with(']')) return path;
  const std::string rows = path.substr(open + 1, path.size() - open - 2);
  const size_t colon = rows.find(':');
  const bool are_rows = colon != std::string::npos && rows.rfind(':') == colon &&
                        rows.find_first_not_of("0123456789:") == std::string::npos;
  return are_rows ? path.substr(0, open) : path;
}

std::string NumberText(double number) {
  char buffer[64];
  // Integers without an exponent: 10000000, not 1e+07.
  const bool whole = number == static_cast<double>(static_cast<int64_t>(number)) &&
                     number > -1e16 && number < 1e16;
  const auto end = whole
                       ? std::to_chars(buffer, buffer + sizeof buffer, static_cast<int64_t>(number))
                       : std::to_chars(buffer, buffer + sizeof buffer, number);
  return {buffer, end.ptr};
}

}  // namespace tandem
