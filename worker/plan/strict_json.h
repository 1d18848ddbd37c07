// Two walkers over a JSON object: one writes fields, one reads them strictly. A struct is walked by
// one function for both directions, so a key cannot be written and not read.
//
// JsonReader notes every missing key, wrong type, value out of range and unknown key by its path,
// and goes on: a reader gets all violations at once. Confined to one thread; nothing throws.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace tandem {

// Closed ranges; `above` excludes min.
struct IntegerRange {
  int64_t min = 0;
  int64_t max = std::numeric_limits<int64_t>::max();
};
struct RealRange {
  double min = 0;
  double max = 0;
  bool above = false;
};
// Which texts a field takes.
struct TextRule {
  bool may_be_empty = false;
  bool absolute_path = false;
  std::vector<std::string> allowed = {};  // empty: any
};

class JsonWriter {
 public:
  explicit JsonWriter(nlohmann::ordered_json& out) : out_(out) {
    out_ = nlohmann::ordered_json::object();
  }
  void Integer(const char* key, const int64_t& value, IntegerRange) { out_[key] = value; }
  void Unsigned(const char* key, const uint64_t& value) { out_[key] = value; }
  void Real(const char* key, const double& value, RealRange) { out_[key] = value; }
  void Flag(const char* key, const bool& value) { out_[key] = value; }
  void Text(const char* key, const std::string& value, const TextRule&) { out_[key] = value; }
  void Texts(const char* key, const std::vector<std::string>& value, const TextRule&) {
    out_[key] = value;
  }
  void Reals(const char* key, const std::vector<double>& value, RealRange) { out_[key] = value; }
  void Integers(const char* key, const std::vector<int64_t>& value, IntegerRange) {
    out_[key] = value;
  }
  template <typename Walk, typename T>
  void Object(const char* key, const T& value, const Walk& walk) {
    JsonWriter inner(out_[key]);
    walk(inner, value);
  }
  template <typename Walk, typename T>
  void Objects(const char* key, const std::vector<T>& values, size_t, const Walk& walk) {
    auto& list = out_[key] = nlohmann::ordered_json::array();
    for (const T& value : values) {
      list.push_back({});
      JsonWriter inner(list.back());
      walk(inner, value);
    }
  }

 private:
  nlohmann::ordered_json& out_;
};

class JsonReader {
 public:
  // `path` is "" for the root; violations are "path: what; what is allowed".
  JsonReader(const nlohmann::ordered_json& object, std::string path,
             std::vector<std::string>& violations);
  void Integer(const char* key, int64_t& value, IntegerRange range);
  void Unsigned(const char* key, uint64_t& value);
  void Real(const char* key, double& value, RealRange range);
  void Flag(const char* key, bool& value);
  void Text(const char* key, std::string& value, const TextRule& rule);
  void Texts(const char* key, std::vector<std::string>& values, const TextRule& rule);
  void Reals(const char* key, std::vector<double>& values, RealRange range);
  void Integers(const char* key, std::vector<int64_t>& values, IntegerRange range,
                size_t max_items = 64);
  template <typename Walk, typename T>
  void Object(const char* key, T& value, const Walk& walk) {
    const nlohmann::ordered_json* found = Find(key);
    if (found == nullptr) return;
    JsonReader inner(*found, PathOf(key), violations_);
    walk(inner, value);
    inner.RefuseUnknown();
  }
  template <typename Walk, typename T>
  void Objects(const char* key, std::vector<T>& values, size_t max_items, const Walk& walk) {
    const nlohmann::ordered_json* found = FindList(key, max_items);
    if (found == nullptr) return;
    for (size_t i = 0; i < found->size(); ++i) {
      JsonReader inner((*found)[i], PathOf(key) + "[" + std::to_string(i) + "]", violations_);
      walk(inner, values.emplace_back());
      inner.RefuseUnknown();
    }
  }
  // Keys that nobody asked for are violations. Call last.
  void RefuseUnknown();

 private:
  const nlohmann::ordered_json* Find(const char* key);
  const nlohmann::ordered_json* FindList(const char* key, size_t max_items);
  std::string PathOf(const std::string& key) const {
    return path_.empty() ? key : path_ + "." + key;
  }
  void Note(const std::string& path, const std::string& text) {
    violations_.push_back(path + " " + text);
  }
  void CheckText(const std::string& path, const std::string& value, const TextRule& rule);
  void CheckReal(const std::string& path, double value, RealRange range);
  void ReadInteger(const std::string& path, const nlohmann::ordered_json& found, int64_t& value,
                   IntegerRange range);

  const nlohmann::ordered_json& object_;
  std::string path_;
  std::vector<std::string>& violations_;
  std::set<std::string> asked_;
};

}  // namespace tandem
