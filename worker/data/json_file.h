// JSON that another program wrote, read without trust: another version may have made it, or a disk
// damaged it.
//
// For the files of a token folder and of a job: small members are asked by name and type, lists are
// parsed entry by entry, and a fault names the file and the place in it. Free of state; any thread.
// Not for what must be told whole, all violations at once: worker/plan/strict_json.h.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace tandem {

// kInvalidArgument where the file is no JSON object; larger files are refused before they are read.
Result<nlohmann::json> ReadJsonObject(const std::string& path,
                                      int64_t max_bytes = int64_t{1} << 30);

// The member of that name; null where there is none or `object` is no object.
const nlohmann::json& MemberOf(const nlohmann::json& object, const char* key);
// The same by type; `otherwise` (text: "", list: empty) where the member is none of it.
int64_t IntegerOf(const nlohmann::json& object, const char* key, int64_t otherwise = -1);
double RealOf(const nlohmann::json& object, const char* key, double otherwise = 0);
std::string TextOf(const nlohmann::json& object, const char* key);
const nlohmann::json& ListOf(const nlohmann::json& object, const char* key);

// The list "ids"; each must be in [0, vocab_size), or at least 0 where vocab_size is 0.
Result<std::vector<int64_t>> TokenIdsOf(const nlohmann::json& entry, int64_t vocab_size);

// parse(entry) of every entry of root[key]. `where` begins the fault: "<where>: prompts[3] has
// ...".
template <typename T, typename Parse>
Result<std::vector<T>> ParseEntries(const std::string& where, const nlohmann::json& root,
                                    const char* key, const Parse& parse) {
  std::vector<T> entries;
  for (const nlohmann::json& entry : ListOf(root, key)) {
    Result<T> parsed = parse(entry);
    if (!parsed.ok()) {
      return InvalidArgument(where + ": " + key + "[" + std::to_string(entries.size()) + "] " +
                             parsed.status().message());
    }
    entries.push_back(std::move(parsed).value());
  }
  return entries;
}

}  // namespace tandem
