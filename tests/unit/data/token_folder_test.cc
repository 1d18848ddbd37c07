#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "tests/unit/data/shard_files.h"
#include "tests/unit/model_files/folder.h"
#include "worker/data/token_shards.h"

namespace tandem {
namespace {

using nlohmann::json;

class TokenFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    const ShardFiles files = MakeShard({{1, 2, 3}, {4, 9}});
    for (const char* name : {"train", "validation"}) {
      ASSERT_TRUE(WriteShard(folder_.File(name), files).ok());
      for (const char* suffix : {".bin", ".idx"}) {
        const std::string file = std::string(name) + suffix;
        manifest_["files"][file] = {{"sha256", *Sha256OfFile(folder_.File(file))}, {"bytes", 1}};
      }
    }
    manifest_["version"] = 1;
    manifest_["tokenizer_sha256"] = "abc";
    manifest_["max_id"] = 9;
  }
  Status Check() {
    EXPECT_TRUE(WriteFileDurably(folder_.File("manifest.json"), manifest_.dump()).ok());
    return CheckTokenFolder(folder_.path(), {"abc", 10, true});
  }
  void ExpectRefused(const std::string& part) {
    const Status status = Check();
    ASSERT_FALSE(status.ok()) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  }
  TestFolder folder_;
  json manifest_;
};

TEST_F(TokenFolderTest, AcceptsWhatFits) {
  EXPECT_TRUE(Check().ok()) << Check().ToString();
}

TEST_F(TokenFolderTest, RefusesAnotherTokenizer) {
  manifest_["tokenizer_sha256"] = "other";
  ExpectRefused("prepare again with this model");
}

TEST_F(TokenFolderTest, RefusesIdsOutsideTheVocabulary) {
  manifest_["max_id"] = 10;
  ExpectRefused("max_id is 10; must be in [0, 10)");
}

TEST_F(TokenFolderTest, RefusesAMissingSplit) {
  manifest_["files"].erase("validation.bin");
  ExpectRefused("does not name validation.bin");
}

TEST_F(TokenFolderTest, EveryShardOfTheListMustBeThere) {
  manifest_["train_shards"] = {{{"name", "train"}, {"weight", 1}},
                               {{"name", "train-1"}, {"weight", 2}}};
  ExpectRefused("does not name train-1.bin");
  manifest_["train_shards"].erase(1);
  EXPECT_TRUE(Check().ok()) << Check().ToString();
  manifest_["train_shards"][0]["weight"] = "much";
  ExpectRefused("train_shards[0] needs a plain name");
}

TEST_F(TokenFolderTest, FindsAFlippedBit) {
  std::string bytes = *ReadFile(folder_.File("train.bin"));
  bytes[3] = static_cast<char>(bytes[3] ^ 4);
  ASSERT_TRUE(WriteFileDurably(folder_.File("train.bin"), bytes).ok());
  ExpectRefused("train.bin has the digest");
}

TEST_F(TokenFolderTest, SaysAllAtOnce) {
  manifest_["version"] = 2;
  manifest_["max_id"] = "x";
  const Status status = Check();
  EXPECT_NE(status.message().find("version is 2"), std::string::npos);
  EXPECT_NE(status.message().find("max_id"), std::string::npos);
}

TEST_F(TokenFolderTest, ReadsPasskeyPrompts) {
  EXPECT_TRUE(ReadPasskeyPrompts(folder_.path(), 10)->empty());
  const auto write = [&](const json& root) {
    ASSERT_TRUE(WriteFileDurably(folder_.File("passkey.json"), root.dump()).ok());
  };
  json prompt = {{"distance", 2}, {"ids", {1, 2, 3, 4}}, {"answer_start", 2}, {"answer_length", 2}};
  write({{"length", 4}, {"prompts", {prompt}}});
  const auto prompts = ReadPasskeyPrompts(folder_.path(), 10);
  ASSERT_TRUE(prompts.ok()) << prompts.status().ToString();
  EXPECT_EQ(prompts->at(0).ids[3], 4);

  const auto refused = [&](json bad, const char* part) {
    write({{"length", 4}, {"prompts", {bad}}});
    const auto result = ReadPasskeyPrompts(folder_.path(), 10);
    ASSERT_FALSE(result.ok()) << part;
    EXPECT_NE(result.status().message().find(part), std::string::npos) << result.status().message();
  };
  json bad = prompt;
  bad["ids"][0] = 10;
  refused(bad, "holds the id 10");
  bad = prompt;
  bad["ids"].erase(0);
  refused(bad, "has 3 ids; length is 4");
  bad = prompt;
  bad["answer_length"] = 3;
  refused(bad, "answer outside");
  bad = prompt;
  bad.erase("distance");
  refused(bad, "needs distance");
}

}  // namespace
}  // namespace tandem
