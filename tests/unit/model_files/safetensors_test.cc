#include "worker/model/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "tests/unit/model_files/folder.h"

namespace tandem {
namespace {

std::string LengthWord(uint64_t length) {
  std::string word;
  for (int i = 0; i < 8; ++i) word += static_cast<char>(length >> (8 * i));
  return word;
}

// A file of this header and so many zero bytes of data.
std::string FileOf(const std::string& header, size_t data_bytes) {
  return LengthWord(header.size()) + header + std::string(data_bytes, '\0');
}

Result<SafetensorsHeader> Parse(const std::string& file) {
  return ParseSafetensorsHeader(reinterpret_cast<const std::byte*>(file.data()),
                                static_cast<int64_t>(file.size()),
                                static_cast<int64_t>(file.size()), "w.safetensors");
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

TEST(SafetensorsHeader, ReadsTensorsInTheOrderOfTheirData) {
  const auto header = Parse(FileOf(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},)"
      R"("a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
      R"("s":{"dtype":"I64","shape":[],"data_offsets":[28,36]},"n":{"dtype":"U8","shape":[0,7],"data_offsets":[28,28]}}  )",
      36));
  ASSERT_TRUE(header.ok()) << header.status().ToString();
  ASSERT_EQ(header->tensors.size(), 4u);
  EXPECT_EQ(header->tensors[0].name, "a");
  EXPECT_EQ(header->tensors[1].name, "b");
  EXPECT_EQ(header->tensors[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header->tensors[1].bytes, 24);
  EXPECT_EQ(header->tensors[2].name, "n");
  EXPECT_EQ(header->tensors[3].name, "s");
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

struct BadFile {
  const char* what;
  std::string bytes;
  const char* message;  // a part of it
};

std::string One(const std::string& body, size_t data_bytes) {
  return FileOf("{\"a\":" + body + "}", data_bytes);
}

std::vector<BadFile> BadFiles() {
  const std::string good = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  return {
      {"empty file", "", "at least 8"},
      {"seven bytes", "1234567", "at least 8"},
      {"huge length", LengthWord(UINT64_MAX) + "{}", "at most 100000000"},
      {"length past the end", LengthWord(50) + "{}", "header's length is 50"},
      {"no header", LengthWord(0) + "{}", "2 are the least"},
      {"starts with a space", FileOf(" {}", 0), "must start with '{'"},
      {"a pickle", std::string("\x80\x02}q\x00.\x00\x00{}", 11), "header"},
      {"not JSON", FileOf("{abc}", 0), "not a JSON object"},
      {"not closed", FileOf("{\"a\":", 0), "not a JSON object"},
      {"invalid UTF-8", FileOf("{\"\xff\":1}", 0), "not a JSON object"},
      {"nested too deeply", One("[[[[[[[[1]]]]]]]]", 4), "not a JSON object"},
      {"duplicate tensor", FileOf("{\"a\":" + good + ",\"a\":" + good + "}", 4), "'a' twice"},
      {"duplicate key", One(R"({"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})", 4),
       "twice"},
      {"tensor is a number", One("3", 4), "must be an object"},
      {"unknown key", One(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})", 4), "'x'"},
      {"no dtype", One(R"({"shape":[1],"data_offsets":[0,4]})", 4), "has no dtype"},
      {"no shape", One(R"({"dtype":"F32","data_offsets":[0,4]})", 4), "has no shape"},
      {"no offsets", One(R"({"dtype":"F32","shape":[1]})", 4), "has no data_offsets"},
      {"unknown dtype", One(R"({"dtype":"F4","shape":[8],"data_offsets":[0,4]})", 4),
       "allowed: F64"},
      {"dtype a number", One(R"({"dtype":1,"shape":[1],"data_offsets":[0,4]})", 4),
       "must be a string"},
      {"negative size", One(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4), "holds -1"},
      {"fractional size", One(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", 4),
       "holds 1.5"},
      {"shape an object", One(R"({"dtype":"F32","shape":{},"data_offsets":[0,4]})", 4),
       "list of at most"},
      {"seventeen dimensions",
       One(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})",
           4),
       "at most 16"},
      {"product overflows",
       One(R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]})", 0),
       "[0, 2^63)"},
      {"one offset", One(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})", 4), "two integers"},
      {"negative offset", One(R"({"dtype":"F32","shape":[1],"data_offsets":[-4,0]})", 4),
       "two integers"},
      {"offset over 2^63",
       One(R"({"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]})", 4),
       "two integers"},
      {"offsets descend", One(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4),
       "must ascend"},
      {"offset past the end", One(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 4),
       "cut short"},
      {"size differs", One(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})", 4),
       "F32 [2] needs 8"},
      {"hole in front", One(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8),
       "must begin at 0"},
      {"overlap", FileOf("{\"a\":" + good + ",\"b\":" + good + "}", 4), "must begin at 4"},
      {"data after the last", One(good, 8), "the file holds 8"},
      {"metadata a list", FileOf(R"({"__metadata__":[]})", 0), "__metadata__ must be"},
      {"metadata not strings", FileOf(R"({"__metadata__":{"a":1}})", 0), "'a' must be a string"},
  };
}

TEST(SafetensorsHeader, RefusesEveryBrokenFileWithOneClearMessage) {
  const auto files = BadFiles();
  ASSERT_GE(files.size(), 20u);
  for (const BadFile& bad : files) {
    const auto header = Parse(bad.bytes);
    ASSERT_FALSE(header.ok()) << bad.what;
    EXPECT_EQ(header.status().code(), Code::kInvalidArgument) << bad.what;
    const std::string& message = header.status().message();
    EXPECT_NE(message.find(bad.message), std::string::npos) << bad.what << ": " << message;
    EXPECT_EQ(message.find("w.safetensors"), 0u) << bad.what << ": " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << bad.what << ": " << message;
  }
}

TEST(SafetensorsFile, RoundTripsThroughTheWriter) {
  TestFolder folder;
  const float weights[] = {1.5f, -2.0f, 3.25f, 0.0f, 1e-30f, 7.0f};
  const int64_t step = 42;
  TensorView a, b;
  a = {"z.weight", "F32", {2, 3}, reinterpret_cast<const std::byte*>(weights), 24};
  b = {"step", "I64", {}, reinterpret_cast<const std::byte*>(&step), 8};
  const std::string path = folder.File("x.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, {a, b}).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ((*file)->tensors()[0].name, "step");  // wide types first
  const TensorView* read = (*file)->Find("z.weight");
  ASSERT_NE(read, nullptr);
  EXPECT_EQ(read->shape, a.shape);
  EXPECT_EQ(std::memcmp(read->data, weights, 24), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(read->data) % 4, 0u);
  EXPECT_EQ((*file)->Find("y"), nullptr);
  EXPECT_EQ((*file)->metadata().at("format"), "pt");
  a.name = "step";
  EXPECT_EQ(WriteSafetensors(path, {a, b}).code(), Code::kInvalidArgument);
}

// Writes a shard with one tensor `name`.
void WriteShard(const std::string& path, const std::string& name) {
  const float value = 1;
  ASSERT_TRUE(
      WriteSafetensors(path, {{name, "F32", {1}, reinterpret_cast<const std::byte*>(&value), 4}})
          .ok());
}

TEST(SafetensorsModel, ReadsShards) {
  TestFolder folder;
  WriteShard(folder.File("m-1.safetensors"), "a");
  WriteShard(folder.File("m-2.safetensors"), "b");
  WriteFile(folder.File("model.safetensors.index.json"),
            R"({"metadata":{},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}})");
  const auto model = SafetensorsModel::Open(folder.path());
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(model->tensors().size(), 2u);
  EXPECT_EQ(model->FilePaths().size(), 2u);
  ASSERT_NE(model->Find("b"), nullptr);
}

struct BadDirectory {
  const char* what;
  const char* index;  // null: none
  const char* extra_file;
  const char* message;
};

TEST(SafetensorsModel, RefusesBrokenDirectories) {
  const BadDirectory cases[] = {
      {"nothing", nullptr, nullptr, "holds no weights"},
      {"a pickle", nullptr, "pytorch_model.bin", "safe_serialization=True"},
      {"index not JSON", "x", nullptr, "weight_map"},
      {"no weight_map", "{}", nullptr, "weight_map"},
      {"weight_map empty", R"({"weight_map":{}})", nullptr, "weight_map"},
      {"shard a number", R"({"weight_map":{"a":1}})", nullptr, "must be a file name"},
      {"path in a shard", R"({"weight_map":{"a":"../m-1.safetensors"}})", nullptr, "plain name"},
      {"shard a pickle", R"({"weight_map":{"a":"m-1.bin"}})", nullptr, "plain name"},
      {"shard missing", R"({"weight_map":{"a":"m-9.safetensors"}})", nullptr, "No such file"},
      {"tensor missing", R"({"weight_map":{"a":"m-1.safetensors","b":"m-1.safetensors"}})", nullptr,
       "does not hold it"},
      {"tensor elsewhere", R"({"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors"}})",
       nullptr, "places in"},
      {"tensor unnamed", R"({"weight_map":{"c":"m-1.safetensors"}})", nullptr, "does not name"},
      {"broken file", nullptr, "model.safetensors", "at least 8"},
  };
  for (const BadDirectory& bad : cases) {
    TestFolder folder;
    WriteShard(folder.File("m-1.safetensors"), "a");
    WriteShard(folder.File("m-2.safetensors"), "b");
    if (bad.index) WriteFile(folder.File("model.safetensors.index.json"), bad.index);
    if (bad.extra_file) WriteFile(folder.File(bad.extra_file), "x");
    const auto model = SafetensorsModel::Open(folder.path());
    ASSERT_FALSE(model.ok()) << bad.what;
    EXPECT_NE(model.status().message().find(bad.message), std::string::npos)
        << bad.what << ": " << model.status().message();
  }
  EXPECT_FALSE(SafetensorsModel::Open("/nonexistent").ok());
}

}  // namespace
}  // namespace tandem
