#include "worker/model/config_keys.h"

namespace tandem {
namespace {

using nlohmann::json;

bool IsHuge(const json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{1} << 62;
}

std::string Text(double number) {
  return json(number).dump();
}

}  // namespace

int64_t KeyReader::Integer(const char* key, int64_t low, int64_t high, int64_t absent,
                           bool required) {
  if (!Has(key)) {
    if (required) Refuse(key, "it is needed");
    return absent;
  }
  const json& value = object_[key];
  if (value.is_number_integer()) {
    const int64_t number = value.get<int64_t>();
    if (number >= low && number <= high && !IsHuge(value)) return number;
  }
  Refuse(key, "must be an integer in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
  return absent;
}

double KeyReader::Number(const char* key, double low, double high, double absent, bool required) {
  if (!Has(key)) {
    if (required) Refuse(key, "it is needed");
    return absent;
  }
  const json& value = object_[key];
  if (value.is_number() && value.get<double>() >= low && value.get<double>() <= high) {
    return value.get<double>();
  }
  Refuse(key, "must be a number in [" + Text(low) + ", " + Text(high) + "]");
  return absent;
}

bool KeyReader::Boolean(const char* key, bool absent) {
  if (!Has(key)) return absent;
  if (object_[key].is_boolean()) return object_[key].get<bool>();
  Refuse(key, "must be true or false");
  return absent;
}

std::string KeyReader::String(const char* key, const std::string& absent) {
  if (!Has(key)) return absent;
  if (object_[key].is_string()) return object_[key].get<std::string>();
  Refuse(key, "must be a string");
  return absent;
}

std::vector<int64_t> KeyReader::Integers(const char* key) {
  std::vector<int64_t> numbers;
  if (!Has(key)) return numbers;
  const json& value = object_[key];
  for (const json& item : value.is_array() ? value : json::array({value})) {
    if (!item.is_number_integer() || item.get<int64_t>() < 0 || IsHuge(item)) {
      Refuse(key, "must be a token id or a list of them");
      return {};
    }
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

void KeyReader::Refuse(const char* key, const std::string& allowed) {
  std::string value = object_.contains(key) ? object_[key].dump(-1, ' ', true) : "absent";
  if (value.size() > 80) value = value.substr(0, 77) + "...";
  violations_->push_back(prefix_ + key + " is " + value + "; " + allowed);
}

std::string ViolationLines(const std::vector<std::string>& violations, const std::string& where) {
  std::string text;
  for (const std::string& line : violations)
    text += (text.empty() ? "" : "\n") + where + ": " + line;
  return text;
}

}  // namespace tandem
