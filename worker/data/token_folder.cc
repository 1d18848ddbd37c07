// The folder around the shards: manifest.json and passkey.json.
#include <cmath>

#include "base/digest.h"
#include "base/files.h"
#include "worker/data/json_file.h"
#include "worker/data/token_shards.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr int64_t kMaxManifestBytes = int64_t{64} << 20;
constexpr size_t kMaxPrompts = 100'000;

// Empty when the file is as the manifest says.
std::string CompareFile(const std::string& folder, const std::string& name, const json& entry,
                        bool check_digests) {
  const std::string path = JoinPath(folder, name);
  if (name.find('/') != std::string::npos) return name + " is not a plain file name";
  if (!PathExists(path)) return name + " is not there";
  const std::string promised = TextOf(entry, "sha256");
  if (promised.empty()) return name + " has no sha256 in manifest.json";
  if (!check_digests) return "";
  const Result<std::string> digest = Sha256OfFile(path);
  if (!digest.ok()) return digest.status().message();
  if (*digest != promised) {
    return name + " has the digest " + *digest + "; manifest.json promises " + promised +
           ": the file is damaged, delete the folder and prepare again";
  }
  return "";
}

Result<std::vector<TrainShard>> TrainShardsOf(const json& manifest) {
  if (!manifest.contains("train_shards")) return std::vector<TrainShard>{{"train", 1}};
  std::vector<TrainShard> shards;
  for (const json& entry : ListOf(manifest, "train_shards")) {
    const TrainShard shard{TextOf(entry, "name"), RealOf(entry, "weight")};
    if (shard.name.empty() || shard.name.find('/') != std::string::npos ||
        !std::isfinite(shard.weight) || shard.weight <= 0) {
      return InvalidArgument("train_shards[" + std::to_string(shards.size()) +
                             "] needs a plain name and a weight above 0");
    }
    shards.push_back(shard);
  }
  if (shards.empty()) return InvalidArgument("train_shards must list at least one shard");
  return shards;
}

void CheckFiles(const std::string& folder, const json& manifest, bool check_digests,
                std::vector<std::string>* bad) {
  const json& files = MemberOf(manifest, "files");
  std::vector<std::string> names = {"validation"};
  const Result<std::vector<TrainShard>> shards = TrainShardsOf(manifest);
  if (!shards.ok()) {
    bad->push_back("manifest.json: " + shards.status().message());
  } else {
    for (const TrainShard& shard : *shards) names.push_back(shard.name);
  }
  for (const std::string& name : names) {
    for (const char* ending : {".bin", ".idx"}) {
      if (!files.contains(name + ending)) {
        bad->push_back("manifest.json does not name " + name + ending);
      }
    }
  }
  for (const auto& item : files.items()) {
    const std::string wrong = CompareFile(folder, item.key(), item.value(), check_digests);
    if (!wrong.empty()) bad->push_back(wrong);
  }
}

Result<PasskeyPrompt> ParsePrompt(const json& entry, int64_t length, int64_t vocab_size) {
  PasskeyPrompt prompt;
  prompt.distance = IntegerOf(entry, "distance");
  prompt.answer_start = IntegerOf(entry, "answer_start");
  prompt.answer_length = IntegerOf(entry, "answer_length");
  if (prompt.distance < 0 || ListOf(entry, "ids").empty()) {
    return InvalidArgument("needs distance, ids, answer_start and answer_length");
  }
  TANDEM_ASSIGN_OR_RETURN(prompt.ids, TokenIdsOf(entry, vocab_size));
  if (static_cast<int64_t>(prompt.ids.size()) != length) {
    return InvalidArgument("has " + std::to_string(prompt.ids.size()) + " ids; length is " +
                           std::to_string(length));
  }
  if (prompt.answer_start < 1 || prompt.answer_length < 1 || prompt.answer_start >= length ||
      prompt.answer_length > length - prompt.answer_start) {
    return InvalidArgument("has its answer outside ids 1 ... " + std::to_string(length - 1));
  }
  return prompt;
}

}  // namespace

Status CheckTokenFolder(const std::string& folder, const TokenExpectations& expected) {
  TANDEM_ASSIGN_OR_RETURN(const json manifest,
                          ReadJsonObject(JoinPath(folder, "manifest.json"), kMaxManifestBytes));
  std::vector<std::string> bad;
  const int64_t version = IntegerOf(manifest, "version");
  if (version != 1) {
    bad.push_back("version is " + std::to_string(version) + "; must be 1: prepare again");
  }
  const std::string tokenizer = TextOf(manifest, "tokenizer_sha256");
  if (!expected.tokenizer_sha256.empty() && tokenizer != expected.tokenizer_sha256) {
    bad.push_back("tokenizer_sha256 is '" + tokenizer + "'; the model's tokenizer.json has " +
                  expected.tokenizer_sha256 + ": prepare again with this model");
  }
  const int64_t max_id = IntegerOf(manifest, "max_id");
  if (max_id < 0 || (expected.vocab_size > 0 && max_id >= expected.vocab_size)) {
    bad.push_back("max_id is " + std::to_string(max_id) + "; must be in [0, " +
                  std::to_string(expected.vocab_size) + "), the model's vocabulary");
  }
  CheckFiles(folder, manifest, expected.check_digests, &bad);
  std::string text;
  for (const std::string& line : bad) text += (text.empty() ? "" : "\n") + folder + ": " + line;
  return bad.empty() ? Status::Ok() : InvalidArgument(text);
}

Result<std::vector<TrainShard>> ReadTrainShards(const std::string& folder) {
  const std::string path = JoinPath(folder, "manifest.json");
  TANDEM_ASSIGN_OR_RETURN(const json manifest, ReadJsonObject(path, kMaxManifestBytes));
  Result<std::vector<TrainShard>> shards = TrainShardsOf(manifest);
  if (!shards.ok()) return InvalidArgument(path + ": " + shards.status().message());
  return shards;
}

Result<std::vector<PasskeyPrompt>> ReadPasskeyPrompts(const std::string& folder,
                                                      int64_t vocab_size) {
  const std::string path = JoinPath(folder, "passkey.json");
  if (!PathExists(path)) return std::vector<PasskeyPrompt>{};
  TANDEM_ASSIGN_OR_RETURN(const json root, ReadJsonObject(path, kMaxManifestBytes));
  const int64_t length = IntegerOf(root, "length");
  if (length < 2 || !MemberOf(root, "prompts").is_array() ||
      ListOf(root, "prompts").size() > kMaxPrompts) {
    return InvalidArgument(path + " needs length (2 or more) and prompts (at most 100000)");
  }
  return ParseEntries<PasskeyPrompt>(path, root, "prompts", [&](const json& entry) {
    return ParsePrompt(entry, length, vocab_size);
  });
}

}  // namespace tandem
