// Runs every story of this folder and compares its transcript. See story.h for the commands,
// script.h for the format.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/files.h"
#include "tests/scenario/script.h"
#include "tests/scenario/story.h"

namespace tandem::scenario {
namespace {

const std::string& Folder() {
  static const std::string folder = std::string(TANDEM_SOURCE_DIR) + "/tests/scenario";
  return folder;
}

std::vector<std::string> Stories() {
  std::vector<std::string> stories;
  const Result<std::vector<std::string>> names = ListFolder(Folder());
  for (const std::string& name : names.value()) {
    if (name.ends_with(".txt") && name != "CMakeLists.txt") {
      stories.push_back(name.substr(0, name.size() - 4));
    }
  }
  return stories;
}

class ScenarioTest : public testing::TestWithParam<std::string> {};

TEST_P(ScenarioTest, Transcript) {
  const std::string path = Folder() + "/" + GetParam() + ".txt";
  Result<std::vector<Block>> blocks = ReadScript(path);
  ASSERT_TRUE(blocks.ok()) << blocks.status().ToString();
  const bool rewrite = std::getenv("TANDEM_REWRITE") != nullptr;
  Story story;
  for (Block& block : *blocks) {
    std::string actual;
    for (const std::string& command : block.commands) actual += story.Do(command);
    if (actual.empty()) actual = "nothing\n";
    EXPECT_EQ(actual.find("BROKEN"), std::string::npos) << path << ":" << block.line << "\n"
                                                        << actual;
    if (!rewrite) {
      EXPECT_EQ(block.expected, actual) << path << ":" << block.line;
    }
    block.expected = actual;
  }
  if (rewrite) {
    ASSERT_TRUE(WriteScript(path, *blocks).ok());
  }
}

TEST(ScenarioFolder, HoldsStories) {
  EXPECT_GE(Stories().size(), 14U);
}

INSTANTIATE_TEST_SUITE_P(All, ScenarioTest, testing::ValuesIn(Stories()),
                         [](const auto& story) { return story.param; });

}  // namespace
}  // namespace tandem::scenario
