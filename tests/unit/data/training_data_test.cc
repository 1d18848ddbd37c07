#include "worker/data/training_data.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/unit/data/shard_files.h"
#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr int64_t kT = 4;

class TrainingDataTest : public testing::Test {
 protected:
  // Tokens count up from `first`; documents have these lengths.
  static std::vector<std::vector<uint16_t>> Counting(uint16_t first, std::vector<int> lengths) {
    std::vector<std::vector<uint16_t>> documents;
    for (const int length : lengths) {
      documents.emplace_back();
      for (int i = 0; i < length; ++i) documents.back().push_back(first++);
    }
    return documents;
  }
  void Write(const std::string& name, const std::vector<std::vector<uint16_t>>& documents) {
    ASSERT_TRUE(WriteShard(folder_.File(name), MakeShard(documents)).ok());
  }
  void WriteMask(const std::string& name, const std::vector<std::vector<uint8_t>>& documents) {
    ASSERT_TRUE(WriteShard(folder_.File(name + ".mask"), MakeShard(documents)).ok());
  }
  Result<std::unique_ptr<TrainingData>> Open(const json& manifest = json::object()) {
    EXPECT_TRUE(WriteFileDurably(folder_.File("manifest.json"), manifest.dump()).ok());
    return TrainingData::Open(folder_.path(), kT);
  }
  std::unique_ptr<TrainingData> Opened(const json& manifest = json::object()) {
    auto data = Open(manifest);
    EXPECT_TRUE(data.ok()) << data.status().ToString();
    return std::move(data).value();
  }
  void ExpectRefused(const json& manifest, const std::string& part) {
    const auto data = Open(manifest);
    ASSERT_FALSE(data.ok()) << part;
    EXPECT_NE(data.status().message().find(part), std::string::npos) << data.status().message();
  }
  static std::vector<int64_t> Ids(const TrainingData& data, const ChunkPlace& place) {
    std::vector<int64_t> ids(kT);
    data.ReadIds(place, ids.data());
    return ids;
  }
  static std::vector<int> Labels(const TrainingData& data, const ChunkPlace& place) {
    std::vector<uint8_t> labels(kT);
    data.ReadLabels(place, labels.data());
    return {labels.begin(), labels.end()};
  }
  TestFolder folder_;
};

TEST_F(TrainingDataTest, OneShardWithoutAMask) {
  Write("train", Counting(0, {3, 6, 4}));
  const auto data = Opened();
  EXPECT_EQ(data->num_sources(), 1);
  EXPECT_EQ(data->num_chunks(), 3);  // 13 tokens: the thirteenth is a tail
  EXPECT_FALSE(data->masked());
  EXPECT_EQ(Ids(*data, {0, 1}), (std::vector<int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(Labels(*data, {0, 1}), (std::vector<int>{1, 1, 1, 1}));
  EXPECT_EQ(data->DocumentStarts({0, 0}), (std::vector<int64_t>{3}));
  EXPECT_EQ(data->DocumentStarts({0, 1}), (std::vector<int64_t>{}));
  EXPECT_EQ(data->DocumentStarts({0, 2}), (std::vector<int64_t>{1}));
}

// A document that begins where its chunk begins is no start within it.
TEST_F(TrainingDataTest, AChunksOwnBeginningIsNoStart) {
  Write("train", Counting(0, {4, 1, 1, 7}));
  const auto data = Opened();
  EXPECT_EQ(data->DocumentStarts({0, 0}), (std::vector<int64_t>{}));
  EXPECT_EQ(data->DocumentStarts({0, 1}), (std::vector<int64_t>{1, 2}));
}

TEST_F(TrainingDataTest, ChunksWithoutALabelAreLeftOut) {
  Write("train", Counting(0, {9, 8}));
  // Chunk 0: none; chunk 1: only its first token, which nothing predicts; 2 and 3: labels.
  WriteMask("train", {{0, 0, 0, 0, 1, 0, 0, 0, 0}, {0, 1, 0, 1, 1, 1, 1, 1}});
  const auto data = Opened();
  EXPECT_TRUE(data->masked());
  EXPECT_EQ(data->num_chunks(), 2);
  EXPECT_EQ(Ids(*data, {0, 0}), (std::vector<int64_t>{8, 9, 10, 11}));
  EXPECT_EQ(Labels(*data, {0, 0}), (std::vector<int>{0, 0, 1, 0}));
  EXPECT_EQ(Ids(*data, {0, 1}), (std::vector<int64_t>{12, 13, 14, 15}));
  EXPECT_EQ(data->DocumentStarts({0, 0}), (std::vector<int64_t>{1}));
}

json TwoSources(double a, double b) {
  return {{"train_shards", {{{"name", "a"}, {"weight", a}}, {{"name", "b"}, {"weight", b}}}}};
}

TEST_F(TrainingDataTest, SourcesAreDrawnByWeight) {
  Write("a", Counting(0, {41}));
  Write("b", Counting(100, {21}));
  WriteMask("b", {std::vector<uint8_t>(21, 1)});
  const auto data = Opened(TwoSources(1, 3));
  EXPECT_EQ(data->num_sources(), 2);
  EXPECT_EQ(data->num_chunks(), 15);
  EXPECT_TRUE(data->masked());
  const Sampler sampler = data->MakeSampler(1, 0, 8);
  int64_t of_b = 0;
  for (int64_t step = 0; step < 10; ++step) {
    for (const ChunkPlace& place : sampler.PlacesOfRank(step, 0, 1)) {
      of_b += place.source;
      EXPECT_EQ(Ids(*data, place)[0] >= 100, place.source == 1);
      EXPECT_EQ(Labels(*data, place), (std::vector<int>{1, 1, 1, 1}));
    }
  }
  EXPECT_EQ(of_b, 60);
}

TEST_F(TrainingDataTest, RefusesWhatDoesNotFit) {
  Write("train", Counting(0, {4}));
  ExpectRefused(json::object(), "4 tokens; one sequence needs more than data.sequence_length = 4");
  Write("train", Counting(0, {9}));
  WriteMask("train", {std::vector<uint8_t>(9, 0)});
  ExpectRefused(json::object(), "none of them to be trained");
  WriteMask("train", {std::vector<uint8_t>(8, 1)});
  ExpectRefused(json::object(), "document 1 begins at token 8");
  WriteMask("train", {{1}, std::vector<uint8_t>(8, 1)});
  ExpectRefused(json::object(), "has 2 documents");
  ExpectRefused(TwoSources(1, 1), "a.idx");
  ExpectRefused(TwoSources(0, 1), "train_shards[0] needs a plain name and a weight above 0");
  ExpectRefused({{"train_shards", {{{"name", "../a"}, {"weight", 1}}}}}, "plain name");
  ExpectRefused({{"train_shards", json::array()}}, "at least one shard");
}

}  // namespace
}  // namespace tandem
