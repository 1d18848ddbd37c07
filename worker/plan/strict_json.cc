#include "worker/plan/strict_json.h"

#include <algorithm>

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

std::string Shortened(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

JsonReader::JsonReader(const Json& object, std::string path, std::vector<std::string>& violations)
    : object_(object), path_(std::move(path)), violations_(violations) {
  if (!object_.is_object()) {
    Note(path_.empty() ? "the plan" : path_, "is " + Shortened(object_) + "; must be an object");
  }
}

const Json* JsonReader::Find(const char* key) {
  asked_.insert(key);
  if (!object_.is_object()) return nullptr;  // said once, by the constructor
  const auto found = object_.find(key);
  if (found != object_.end()) return &*found;
  Note(PathOf(key), "is missing");
  return nullptr;
}

const Json* JsonReader::FindList(const char* key, size_t max_items) {
  const Json* found = Find(key);
  if (found == nullptr) return nullptr;
  if (!found->is_array()) {
    Note(PathOf(key), "is " + Shortened(*found) + "; must be a list");
    return nullptr;
  }
  if (found->size() > max_items) {
    Note(PathOf(key),
         "has " + std::to_string(found->size()) + " items; at most " + std::to_string(max_items));
    return nullptr;
  }
  return found;
}

void JsonReader::Integer(const char* key, int64_t& value, IntegerRange range) {
  const Json* found = Find(key);
  if (found != nullptr) ReadInteger(PathOf(key), *found, value, range);
}

void JsonReader::ReadInteger(const std::string& path, const Json& found, int64_t& value,
                             IntegerRange range) {
  const bool too_large =
      found.is_number_unsigned() && found.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (!found.is_number_integer()) {
    Note(path, "is " + Shortened(found) + "; must be a whole number");
    return;
  }
  if (!too_large) value = found.get<int64_t>();
  if (too_large || value < range.min || value > range.max) {
    Note(path, "is " + Shortened(found) + "; must be in [" + std::to_string(range.min) + ", " +
                   std::to_string(range.max) + "]");
  }
}

void JsonReader::Unsigned(const char* key, uint64_t& value) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  if (!found->is_number_unsigned()) {
    Note(PathOf(key), "is " + Shortened(*found) + "; must be a whole number, not negative");
    return;
  }
  value = found->get<uint64_t>();
}

void JsonReader::CheckReal(const std::string& path, double value, RealRange range) {
  const bool low = range.above ? value <= range.min : value < range.min;
  if (std::isfinite(value) && !low && value <= range.max) return;
  Note(path, "is " + Shortened(Json(value)) + "; must be " +
                 (range.above ? "above " : "at least ") + Shortened(Json(range.min)) +
                 " and at most " + Shortened(Json(range.max)));
}

void JsonReader::Real(const char* key, double& value, RealRange range) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  if (!found->is_number()) {
    Note(PathOf(key), "is " + Shortened(*found) + "; must be a number");
    return;
  }
  value = found->get<double>();
  CheckReal(PathOf(key), value, range);
}

void JsonReader::Flag(const char* key, bool& value) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  if (!found->is_boolean()) {
    Note(PathOf(key), "is " + Shortened(*found) + "; must be true or false");
    return;
  }
  value = found->get<bool>();
}

void JsonReader::CheckText(const std::string& path, const std::string& value,
                           const TextRule& rule) {
  if (value.empty()) {
    if (!rule.may_be_empty) Note(path, "is empty; must be a text");
    return;
  }
  if (value.find('\0') != std::string::npos) Note(path, "holds a zero byte; must be a text");
  if (rule.absolute_path && value[0] != '/') {
    Note(path, "is " + Shortened(Json(value)) + "; must be an absolute path");
  }
  const auto& allowed = rule.allowed;
  if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
    Note(path, "is " + Shortened(Json(value)) + "; must be one of " + Joined(allowed));
  }
}

void JsonReader::Text(const char* key, std::string& value, const TextRule& rule) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  if (!found->is_string()) {
    Note(PathOf(key), "is " + Shortened(*found) + "; must be a text");
    return;
  }
  value = found->get<std::string>();
  CheckText(PathOf(key), value, rule);
}

void JsonReader::Texts(const char* key, std::vector<std::string>& values, const TextRule& rule) {
  const Json* found = FindList(key, 64);
  if (found == nullptr) return;
  values.clear();
  for (size_t i = 0; i < found->size(); ++i) {
    const Json& item = (*found)[i];
    const std::string path = PathOf(key) + "[" + std::to_string(i) + "]";
    if (!item.is_string()) {
      Note(path, "is " + Shortened(item) + "; must be a text");
      continue;
    }
    values.push_back(item.get<std::string>());
    CheckText(path, values.back(), rule);
    if (std::count(values.begin(), values.end(), values.back()) > 1) {
      Note(path, "is " + Shortened(item) + " for the second time");
    }
  }
}

void JsonReader::Reals(const char* key, std::vector<double>& values, RealRange range) {
  const Json* found = FindList(key, 64);
  if (found == nullptr) return;
  values.clear();
  for (size_t i = 0; i < found->size(); ++i) {
    const Json& item = (*found)[i];
    const std::string path = PathOf(key) + "[" + std::to_string(i) + "]";
    if (!item.is_number()) {
      Note(path, "is " + Shortened(item) + "; must be a number");
      continue;
    }
    values.push_back(item.get<double>());
    CheckReal(path, values.back(), range);
  }
}

void JsonReader::Integers(const char* key, std::vector<int64_t>& values, IntegerRange range,
                          size_t max_items) {
  const Json* found = FindList(key, max_items);
  if (found == nullptr) return;
  values.clear();
  for (size_t i = 0; i < found->size(); ++i) {
    const std::string path = PathOf(key) + "[" + std::to_string(i) + "]";
    ReadInteger(path, (*found)[i], values.emplace_back(), range);
  }
}

void JsonReader::RefuseUnknown() {
  if (!object_.is_object()) return;
  for (const auto& [key, value] : object_.items()) {
    if (asked_.count(key) == 0) Note(PathOf(key), "is not known; delete it");
  }
}

}  // namespace tandem
