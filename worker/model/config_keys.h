// ConfigKeys: keys of one object of a model's config.json, read without trust. What is wrong is
// collected, so that all of it is told at once. Absent and null are the same. For model_config.cc
// and rope_config.cc; confined to its owner.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "worker/model/model_config.h"

namespace tandem {

class KeyReader {
 public:
  // prefix: of the keys in messages, as in "rope_scaling.".
  KeyReader(const nlohmann::json& object, std::string prefix, std::vector<std::string>* violations)
      : object_(object), prefix_(std::move(prefix)), violations_(violations) {}

  bool Has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  // `absent` where the key is not there or wrong; required: absence is wrong, too.
  int64_t Integer(const char* key, int64_t low, int64_t high, int64_t absent, bool required);
  double Number(const char* key, double low, double high, double absent, bool required = false);
  bool Boolean(const char* key, bool absent);
  std::string String(const char* key, const std::string& absent);
  // An integer or a list of them; none where the key is not there.
  std::vector<int64_t> Integers(const char* key);
  // "prefix.key is VALUE; ALLOWED".
  void Refuse(const char* key, const std::string& allowed);

 private:
  const nlohmann::json& object_;
  const std::string prefix_;
  std::vector<std::string>* violations_;
};

// Both spellings, as they must agree: rope_theta and rope_scaling, rope_parameters.
// original_max_position_embeddings 0: the model's own, to be set when the whole file is read.
RopeConfig ReadRope(const nlohmann::json& root, std::vector<std::string>* violations);

// One line each, opened by `where`.
std::string ViolationLines(const std::vector<std::string>& violations, const std::string& where);

}  // namespace tandem
