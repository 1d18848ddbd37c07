#include "worker/evaluate/suite_file.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/data/shard_files.h"
#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

using nlohmann::json;

json Good() {
  return {{"version", 1},
          {"bos", "model"},
          {"suites",
           {{{"name", "piqa"},
             {"metric", "acc_norm"},
             {"items",
              {{{"first", 0},
                {"starts", {2, 1}},
                {"lengths", {4, 5}},
                {"answer", 1},
                {"group", "a"}}}}},
            {{"name", "wiki"},
             {"metric", "perplexity"},
             {"items", {{{"first", 2}, {"starts", {1}}, {"words", 3}, {"bytes", 12}}}}}}}};
}

class SuiteFileTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(
        WriteShard(folder_.File("suites"), MakeShard({{1, 2, 3}, {4, 5}, {6, 7, 8, 9}})).ok());
  }
  Result<SuiteFile> Read(const json& root, int64_t vocab_size = 10) {
    EXPECT_TRUE(WriteFileDurably(folder_.File("suites.json"), root.dump()).ok());
    return ReadSuites(folder_.path(), vocab_size);
  }
  void ExpectFault(const json& root, const std::string& words, int64_t vocab_size = 10) {
    const Result<SuiteFile> file = Read(root, vocab_size);
    ASSERT_FALSE(file.ok()) << words;
    EXPECT_NE(file.status().message().find(words), std::string::npos) << file.status().message();
  }
  TestFolder folder_;
};

TEST_F(SuiteFileTest, ReadsItems) {
  const SuiteFile file = Read(Good()).value();
  EXPECT_EQ(file.bos, "model");
  ASSERT_EQ(file.suites.size(), 2u);
  const SuiteItem& item = file.suites[0].items.at(0);
  EXPECT_EQ(item.starts, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(item.lengths, (std::vector<double>{4, 5}));
  EXPECT_EQ(item.answer, 1);
  EXPECT_EQ(item.group, "a");
  EXPECT_EQ(file.suites[1].items.at(0).words, 3);
  EXPECT_EQ(file.requests->num_documents(), 3);
}

TEST_F(SuiteFileTest, AbsentIsEmpty) {
  EXPECT_TRUE(ReadSuites(folder_.path(), 10).value().suites.empty());
}

TEST_F(SuiteFileTest, NamesWhatIsWrong) {
  const auto item = [](json& root) -> json& { return root["suites"][0]["items"][0]; };
  json root = Good();
  root["version"] = 2;
  ExpectFault(root, "version 1");
  root = Good();
  root["suites"][0]["metric"] = "f1";
  ExpectFault(root, "the metric \"f1\"");
  root = Good();
  root["suites"][0]["items"] = json::array();
  ExpectFault(root, "(piqa) has no items");
  root = Good();
  item(root)["first"] = 2;
  ExpectFault(root, "requests 2 ... 3; suites.idx has 3");
  root = Good();
  item(root)["starts"] = {2, 2};
  ExpectFault(root, "at token 2 of a request of 2");
  root = Good();
  item(root)["starts"] = {0, 1};
  ExpectFault(root, "at token 0");
  root = Good();
  item(root)["answer"] = 2;
  ExpectFault(root, "the answer 2");
  root = Good();
  item(root)["lengths"] = {4};
  ExpectFault(root, "1 lengths for 2 choices");
  root = Good();
  item(root)["lengths"] = {4, 0};
  ExpectFault(root, "without characters");
  root = Good();
  root["suites"][1]["items"][0].erase("bytes");
  ExpectFault(root, "words and bytes above 0");
  ExpectFault(Good(), "the id 9; must be in [0, 9)", 9);
}

}  // namespace
}  // namespace tandem
