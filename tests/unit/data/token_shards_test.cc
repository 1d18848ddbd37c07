#include "worker/data/token_shards.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/unit/data/shard_files.h"
#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

std::vector<std::vector<uint16_t>> Documents() {
  return {{1, 2, 3}, {4, 5}, {6, 7, 8, 9, 65535}};
}

TEST(TokenShard, ReadsDocumentsAndChunks) {
  TestFolder folder;
  ASSERT_TRUE(WriteShard(folder.File("t"), MakeShard(Documents())).ok());
  const auto shard = TokenShard::Open(folder.File("t"));
  ASSERT_TRUE(shard.ok()) << shard.status().ToString();
  EXPECT_EQ((*shard)->num_documents(), 3);
  EXPECT_EQ((*shard)->num_tokens(), 10);
  EXPECT_EQ((*shard)->DocumentBegin(1), 3);
  EXPECT_EQ((*shard)->MaxId(), 65535);
  // A chunk is emitted only while more than T tokens are left (strict), the tail is dropped.
  EXPECT_EQ((*shard)->NumChunks(3), 3);
  EXPECT_EQ((*shard)->NumChunks(5), 1);
  EXPECT_EQ((*shard)->NumChunks(9), 1);
  EXPECT_EQ((*shard)->NumChunks(10), 0);
  std::vector<int64_t> ids(4);
  (*shard)->ReadChunk(1, 4, ids.data());
  EXPECT_EQ(ids, (std::vector<int64_t>{5, 6, 7, 8}));
}

// method.md §7, literally: append documents to a buffer, emit while it is longer than T.
std::vector<std::vector<int64_t>> PackByBuffer(const std::vector<std::vector<uint16_t>>& documents,
                                               size_t T) {
  std::vector<int64_t> buffer;
  std::vector<std::vector<int64_t>> chunks;
  for (const auto& document : documents) {
    buffer.insert(buffer.end(), document.begin(), document.end());
    while (buffer.size() > T) {
      chunks.emplace_back(buffer.begin(), buffer.begin() + static_cast<int64_t>(T));
      buffer.erase(buffer.begin(), buffer.begin() + static_cast<int64_t>(T));
    }
  }
  return chunks;
}

TEST(TokenShard, PacksAsTheMethodSays) {
  TestFolder folder;
  std::vector<std::vector<uint16_t>> documents;
  for (size_t i = 0; i < 23; ++i) {
    documents.emplace_back(1 + (i * 7) % 13);
    std::iota(documents.back().begin(), documents.back().end(), static_cast<uint16_t>(100 * i));
  }
  ASSERT_TRUE(WriteShard(folder.File("t"), MakeShard(documents)).ok());
  const auto shard = TokenShard::Open(folder.File("t"));
  ASSERT_TRUE(shard.ok());
  for (size_t T = 1; T < 60; ++T) {
    const auto expected = PackByBuffer(documents, T);
    const auto width = static_cast<int64_t>(T);
    ASSERT_EQ((*shard)->NumChunks(width), static_cast<int64_t>(expected.size())) << T;
    for (size_t c = 0; c < expected.size(); ++c) {
      std::vector<int64_t> ids(T);
      (*shard)->ReadChunk(static_cast<int64_t>(c), width, ids.data());
      ASSERT_EQ(ids, expected[c]) << T << " " << c;
    }
  }
}

TEST(TokenShard, RefusesDamagedFiles) {
  const ShardFiles good = MakeShard(Documents());
  struct Bad {
    const char* what;
    ShardFiles files;
    const char* message;
  };
  std::vector<Bad> cases;
  const auto with = [&](const char* what, const char* message, auto change) {
    ShardFiles files = good;
    change(files);
    cases.push_back({what, files, message});
  };
  with("empty index", "MMIDIDX", [](ShardFiles& f) { f.idx.clear(); });
  with("magic", "MMIDIDX", [](ShardFiles& f) { f.idx[0] = 'X'; });
  with("version", "version is 2", [](ShardFiles& f) { f.idx[9] = 2; });
  with("dtype", "dtype is 5", [](ShardFiles& f) { f.idx[17] = 5; });
  with("index cut", "cut short", [](ShardFiles& f) { f.idx.pop_back(); });
  with("too many sequences", "cut short", [](ShardFiles& f) { f.idx[18] = 4; });
  with("absurd count", "cut short", [](ShardFiles& f) { f.idx[25] = '\x7f'; });
  with("zero length", "is 0; must be above 0", [](ShardFiles& f) { f.idx[34] = 0; });
  with("negative length", "must be above 0", [](ShardFiles& f) { f.idx[37] = '\x80'; });
  with("offset", "begins at byte", [](ShardFiles& f) { f.idx[34 + 12 + 8] = 5; });
  with("data cut", "its index promises 20", [](ShardFiles& f) { f.bin.pop_back(); });
  with("data longer", "its index promises 20", [](ShardFiles& f) { f.bin += "ab"; });
  for (const Bad& bad : cases) {
    TestFolder folder;
    ASSERT_TRUE(WriteShard(folder.File("t"), bad.files).ok());
    const auto shard = TokenShard::Open(folder.File("t"));
    ASSERT_FALSE(shard.ok()) << bad.what;
    EXPECT_NE(shard.status().message().find(bad.message), std::string::npos)
        << bad.what << ": " << shard.status().message();
  }
  EXPECT_EQ(TokenShard::Open("/nonexistent/t").status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace tandem
