#include "base/files.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace tandem {
namespace {

std::string FreshFolder(const std::string& name) {
  const std::string folder = testing::TempDir() + "files_test_" + name + std::to_string(getpid());
  EXPECT_TRUE(RemoveTree(folder).ok());
  EXPECT_TRUE(MakeFolders(folder).ok());
  return folder;
}

TEST(Files, DurableWriteReplacesAndLeavesNothingBeside) {
  const std::string folder = FreshFolder("write");
  const std::string path = JoinPath(folder, "a");
  ASSERT_TRUE(WriteFileDurably(path, "one").ok());
  ASSERT_TRUE(WriteFileDurably(path, "two").ok());
  EXPECT_EQ(ReadFile(path).value(), "two");
  EXPECT_EQ(ListFolder(folder).value(), std::vector<std::string>{"a"});
}

TEST(Files, WriteIntoAMissingFolderFailsAndNamesIt) {
  const std::string path = JoinPath(FreshFolder("missing"), "no/such/a");
  const Status status = WriteFileDurably(path, "x");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(status.message().find("no/such/a"), std::string::npos);
}

TEST(Files, ReadRefusesFoldersAndLargeFiles) {
  const std::string folder = FreshFolder("read");
  EXPECT_EQ(ReadFile(folder).status().code(), Code::kInvalidArgument);
  const std::string path = JoinPath(folder, "large");
  ASSERT_TRUE(WriteFileDurably(path, std::string(100, 'x')).ok());
  EXPECT_EQ(ReadFile(path, 99).status().code(), Code::kInvalidArgument);
  EXPECT_TRUE(ReadFile(path, 100).ok());
}

TEST(Files, RemoveTreeRefusesDangerousPaths) {
  for (const char* path : {"", "/", "relative"})
    EXPECT_EQ(RemoveTree(path).code(), Code::kInvalidArgument) << path;
  const std::string folder = FreshFolder("remove");
  ASSERT_TRUE(MakeFolders(folder + "/a/b").ok());
  ASSERT_TRUE(RemoveTree(folder).ok());
  EXPECT_FALSE(PathExists(folder));
  EXPECT_TRUE(RemoveTree(folder).ok()) << "removing what is gone is fine";
}

}  // namespace
}  // namespace tandem
