// passkey.json and long_range.json as prompts.
#include <iterator>
#include <set>
#include <utility>

#include "base/files.h"
#include "worker/data/json_file.h"
#include "worker/evaluate/long_range.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr size_t kMaxPrompts = 100'000;
const std::set<std::string> kKinds = {"needle", "recall", "key_value"};

Result<LongRangePrompt> ParsePrompt(const json& entry, int64_t vocab_size) {
  LongRangePrompt prompt;
  prompt.kind = TextOf(entry, "kind");
  if (!kKinds.contains(prompt.kind)) {
    return InvalidArgument("has the kind \"" + prompt.kind +
                           "\"; must be needle, recall or key_value");
  }
  TANDEM_ASSIGN_OR_RETURN(prompt.ids, TokenIdsOf(entry, vocab_size));
  const auto length = static_cast<int64_t>(prompt.ids.size());
  if (length < 2) return InvalidArgument("needs ids, 2 or more");
  for (const json& value : ListOf(entry, "answers")) {
    const LongRangeAnswer answer{IntegerOf(value, "start"), IntegerOf(value, "length"),
                                 IntegerOf(value, "distance")};
    if (answer.start < 1 || answer.length < 1 || answer.distance < 0 || answer.start >= length ||
        answer.length > length - answer.start) {
      return InvalidArgument("has an answer outside ids 1 ... " + std::to_string(length - 1) +
                             " or without distance");
    }
    prompt.answers.push_back(answer);
  }
  if (prompt.answers.empty()) return InvalidArgument("has no answers");
  prompt.amount = prompt.kind == "recall"      ? IntegerOf(entry, "facts")
                  : prompt.kind == "key_value" ? IntegerOf(entry, "pairs")
                                               : prompt.answers.front().distance;
  if (prompt.amount < 0) return InvalidArgument("needs facts (recall) or pairs (key_value)");
  return prompt;
}

// long_range.json's.
Result<std::vector<LongRangePrompt>> ReadOthers(const std::string& path, int64_t vocab_size) {
  if (!PathExists(path)) return std::vector<LongRangePrompt>{};
  TANDEM_ASSIGN_OR_RETURN(const json root, ReadJsonObject(path));
  if (IntegerOf(root, "version") != 1 || !MemberOf(root, "prompts").is_array() ||
      ListOf(root, "prompts").size() > kMaxPrompts) {
    return InvalidArgument(path + " needs version 1 and prompts (at most 100000): prepare again");
  }
  return ParseEntries<LongRangePrompt>(
      path, root, "prompts", [&](const json& entry) { return ParsePrompt(entry, vocab_size); });
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
    TANDEM_ASSIGN_OR_RETURN(std::vector<LongRangePrompt> others,
                            ReadOthers(JoinPath(folder, "long_range.json"), vocab_size));
    std::move(others.begin(), others.end(), std::back_inserter(prompts));
  }
  return prompts;
}

}  // namespace tandem
