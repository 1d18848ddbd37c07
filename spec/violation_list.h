// ViolationList: what is wrong with a spec, gathered rule by rule. Confined to one thread.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "spec/spec.h"

namespace tandem {

class ViolationList {
 public:
  // The message is "<field> <text>".
  void Add(const std::string& field, const std::string& text) {
    list_.push_back({field, field.empty() ? text : field + " " + text});
    fields_.insert(field);
  }
  bool Has(const std::string& field) const { return fields_.contains(field); }
  // A rule between fields says nothing about fields that are wrong by themselves.
  void AddUnless(std::initializer_list<std::string> inputs, const std::string& field,
                 const std::string& text) {
    if (!Has(field) && std::ranges::none_of(inputs, [&](const auto& input) { return Has(input); }))
      Add(field, text);
  }
  std::vector<Violation> Take() { return std::move(list_); }

 private:
  std::vector<Violation> list_;
  std::set<std::string> fields_;
};

// "data.train", 2 -> "data.train[2]".
inline std::string ItemPath(const std::string& path, int index) {
  return path + "[" + std::to_string(index) + "]";
}

// In quotes, shortened.
inline std::string Quoted(const std::string& text) {
  return text.size() <= 100 ? JsonQuote(text) : JsonQuote(text.substr(0, 100)) + "...";
}

}  // namespace tandem
