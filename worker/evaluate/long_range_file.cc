// passkey.json and long_range.json as prompts.
#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"
#include "worker/evaluate/long_range.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;
constexpr size_t kMaxPrompts = 100'000;
const std::set<std::string> kKinds = {"needle", "recall", "key_value"};

int64_t IntegerOf(const json& object, const char* key) {
  const bool is_there =
      object.is_object() && object.contains(key) && object[key].is_number_integer();
  return is_there ? object[key].get<int64_t>() : -1;
}

Status ReadIds(const json& entry, int64_t vocab_size, std::vector<int64_t>* ids) {
  if (!entry.contains("ids") || !entry["ids"].is_array() || entry["ids"].size() < 2) {
    return InvalidArgument("needs ids, 2 or more");
  }
  for (const json& id : entry["ids"]) {
    const bool fits = id.is_number_integer() && id.get<int64_t>() >= 0 &&
                      (vocab_size == 0 || id.get<int64_t>() < vocab_size);
    if (!fits) {
      return InvalidArgument("holds the id " + id.dump().substr(0, 40) + "; must be in [0, " +
                             std::to_string(vocab_size) + ")");
    }
    ids->push_back(id.get<int64_t>());
  }
  return Status::Ok();
}

Result<LongRangePrompt> ParsePrompt(const json& entry, int64_t vocab_size) {
  LongRangePrompt prompt;
  const bool has_kind = entry.is_object() && entry.contains("kind") && entry["kind"].is_string();
  if (has_kind) prompt.kind = entry["kind"].get<std::string>();
  if (!kKinds.contains(prompt.kind)) {
    return InvalidArgument("has the kind \"" + prompt.kind +
                           "\"; must be needle, recall or key_value");
  }
  TANDEM_RETURN_IF_ERROR(ReadIds(entry, vocab_size, &prompt.ids));
  const auto length = static_cast<int64_t>(prompt.ids.size());
  if (!entry.contains("answers") || !entry["answers"].is_array() || entry["answers"].empty()) {
    return InvalidArgument("has no answers");
  }
  for (const json& value : entry["answers"]) {
    const LongRangeAnswer answer{IntegerOf(value, "start"), IntegerOf(value, "length"),
                                 IntegerOf(value, "distance")};
    if (answer.start < 1 || answer.length < 1 || answer.distance < 0 || answer.start >= length ||
        answer.length > length - answer.start) {
      return InvalidArgument("has an answer outside ids 1 ... " + std::to_string(length - 1) +
                             " or without distance");
    }
    prompt.answers.push_back(answer);
  }
  prompt.amount = prompt.kind == "recall"      ? IntegerOf(entry, "facts")
                  : prompt.kind == "key_value" ? IntegerOf(entry, "pairs")
                                               : prompt.answers.front().distance;
  if (prompt.amount < 0) return InvalidArgument("needs facts (recall) or pairs (key_value)");
  return prompt;
}

Status ReadOthers(const std::string& path, int64_t vocab_size,
                  std::vector<LongRangePrompt>* prompts) {
  if (!PathExists(path)) return Status::Ok();
  TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxFileBytes));
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object() || IntegerOf(root, "version") != 1 || !root.contains("prompts") ||
      !root["prompts"].is_array() || root["prompts"].size() > kMaxPrompts) {
    return InvalidArgument(path + " needs version 1 and prompts (at most 100000): prepare again");
  }
  int64_t index = 0;
  for (const json& entry : root["prompts"]) {
    Result<LongRangePrompt> prompt = ParsePrompt(entry, vocab_size);
    if (!prompt.ok()) {
      return InvalidArgument(path + ": prompts[" + std::to_string(index) + "] " +
                             prompt.status().message());
    }
    prompts->push_back(std::move(prompt).value());
    ++index;
  }
  return Status::Ok();
}

}  // namespace

Result<std::vector<LongRangePrompt>> ReadLongRange(const Plan& plan, int64_t vocab_size) {
  const std::string& folder = plan.data.tokens;
  std::vector<LongRangePrompt> prompts;
  if (plan.evaluate.passkey) {
    TANDEM_ASSIGN_OR_RETURN(std::vector<PasskeyPrompt> keys,
                            ReadPasskeyPrompts(folder, vocab_size));
    for (PasskeyPrompt& key : keys) {
      prompts.push_back({"passkey",
                         key.distance,
                         std::move(key.ids),
                         {{key.answer_start, key.answer_length, key.distance}}});
    }
  }
  if (plan.evaluate.long_range) {
    TANDEM_RETURN_IF_ERROR(ReadOthers(JoinPath(folder, "long_range.json"), vocab_size, &prompts));
  }
  return prompts;
}

}  // namespace tandem
