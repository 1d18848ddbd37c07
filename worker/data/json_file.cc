#include "worker/data/json_file.h"

#include "base/files.h"

namespace tandem {
namespace {

using nlohmann::json;

}  // namespace

Result<json> ReadJsonObject(const std::string& path, int64_t max_bytes) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, max_bytes));
  json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return InvalidArgument(path + " is not a JSON object");
  return root;
}

const json& MemberOf(const json& object, const char* key) {
  static const json kNone;
  if (!object.is_object()) return kNone;
  const auto found = object.find(key);
  return found == object.end() ? kNone : *found;
}

int64_t IntegerOf(const json& object, const char* key, int64_t otherwise) {
  const json& value = MemberOf(object, key);
  return value.is_number_integer() ? value.get<int64_t>() : otherwise;
}

double RealOf(const json& object, const char* key, double otherwise) {
  const json& value = MemberOf(object, key);
  return value.is_number() ? value.get<double>() : otherwise;
}

std::string TextOf(const json& object, const char* key) {
  const json& value = MemberOf(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}

const json& ListOf(const json& object, const char* key) {
  static const json kEmpty = json::array();
  const json& value = MemberOf(object, key);
  return value.is_array() ? value : kEmpty;
}

Result<std::vector<int64_t>> TokenIdsOf(const json& entry, int64_t vocab_size) {
  std::vector<int64_t> ids;
  for (const json& id : ListOf(entry, "ids")) {
    const bool fits = id.is_number_integer() && id.get<int64_t>() >= 0 &&
                      (vocab_size == 0 || id.get<int64_t>() < vocab_size);
    if (!fits) {
      return InvalidArgument("holds the id " + id.dump().substr(0, 40) + "; must be in [0, " +
                             std::to_string(vocab_size) + ")");
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

}  // namespace tandem
