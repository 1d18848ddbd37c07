// Model directories and data files that cannot work, found before anything starts.
#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/files.h"
#include "spec/spec.h"

namespace tandem {
namespace {

// A folder with a model and a text that pass; cases break them.
class InspectTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/inspect-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    ASSERT_TRUE(MakeFolders(Path("m")).ok());
    Write("m/config.json", R"({"model_type": "llama", "max_position_embeddings": 2048})");
    Write("m/model.safetensors", "x");
    Write("m/tokenizer.json", "{}");
    Write("a.txt", "text");
    spec_.mutable_model()->set_path(Path("m"));
    spec_.mutable_data()->add_train(Path("a.txt"));
    spec_.mutable_data()->set_sequence_length(512);
  }
  void TearDown() override { EXPECT_TRUE(RemoveTree(root_).ok()); }

  std::string Path(const std::string& name) const { return root_ + "/" + name; }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteFileDurably(Path(name), text).ok());
  }
  void Remove(const std::string& name) { ASSERT_TRUE(RemoveTree(Path(name)).ok()); }
  // What InspectPaths says, with the folder's own path cut out.
  std::string Said() const {
    std::string text = ViolationsToText(InspectPaths(spec_));
    for (size_t at = 0; (at = text.find(root_, at)) != std::string::npos;)
      text.replace(at, root_.size(), "R");
    return text;
  }

  std::string root_;
  v1::JobSpec spec_;
};

TEST_F(InspectTest, WholeModelAndTextPass) {
  EXPECT_EQ(Said(), "");
}

TEST_F(InspectTest, NoModel) {
  Remove("m");
  EXPECT_EQ(
      Said(),
      "model.path: R/m does not exist; must be a Hugging Face directory on the worker's disk\n");
}

TEST_F(InspectTest, ModelIsAFile) {
  spec_.mutable_model()->set_path(Path("a.txt"));
  EXPECT_EQ(Said(),
            "model.path: R/a.txt is not a directory; give the one that holds config.json\n");
}

TEST_F(InspectTest, EverythingMissingIsSaidAtOnce) {
  Remove("m/config.json");
  Remove("m/model.safetensors");
  Remove("m/tokenizer.json");
  Remove("a.txt");
  EXPECT_EQ(Said(),
            "model.path: R/m holds no config.json; must be a Hugging Face directory\n"
            "model.path: R/m holds neither model.safetensors nor model.safetensors.index.json\n"
            "model.path: R/m holds no tokenizer.json\n"
            "data.train[0]: R/a.txt does not exist; must be a file on the worker's disk\n");
}

TEST_F(InspectTest, ConfigIsNotJson) {
  Write("m/config.json", "{model_type: llama}");
  EXPECT_EQ(Said(), "model.path: R/m/config.json is not a JSON object; download the model again\n");
}

TEST_F(InspectTest, OtherFamily) {
  Write("m/config.json", R"({"model_type": "mamba"})");
  EXPECT_EQ(Said(),
            "model.path: R/m/config.json says model_type \"mamba\"; supported: \"llama\", "
            "\"mistral\", \"qwen2\", \"qwen3\"\n");
}

TEST_F(InspectTest, AlreadyConverted) {
  Write("m/config.json", R"({"model_type": "hybrid_linear"})");
  EXPECT_EQ(Said(),
            "model.path: R/m/config.json is an already converted model (hybrid_linear); give its "
            "base model, or measure it with recipe diagnose\n");
}

TEST_F(InspectTest, SequenceBeyondTheModel) {
  spec_.mutable_data()->set_sequence_length(4096);
  EXPECT_EQ(Said(),
            "data.sequence_length is 4096; the model reads at most 2048 tokens "
            "(max_position_embeddings)\n");
}

TEST_F(InspectTest, PickledWeights) {
  Remove("m/model.safetensors");
  Write("m/pytorch_model.bin", "x");
  EXPECT_EQ(Said(),
            "model.path: R/m holds only pickled weights (.bin), which are never read; convert them "
            "to safetensors\n");
}

TEST_F(InspectTest, ShardMissingOrElsewhere) {
  Remove("m/model.safetensors");
  Write("m/model.safetensors.index.json",
        R"({"weight_map": {"a": "model-1.safetensors", "b": "../../etc/x.safetensors"}})");
  EXPECT_EQ(Said(),
            "model.path: R/m/model.safetensors.index.json names a shard "
            "\"../../etc/x.safetensors\"; must be file "
            "names in the same directory\n"
            "model.path: R/m lacks model-1.safetensors, which its index names; download the model "
            "again\n");
}

TEST_F(InspectTest, IndexWithoutMap) {
  Remove("m/model.safetensors");
  Write("m/model.safetensors.index.json", "{}");
  EXPECT_EQ(
      Said(),
      "model.path: R/m/model.safetensors.index.json has no weight_map; download the model again\n");
}

TEST_F(InspectTest, OldTokenizer) {
  Remove("m/tokenizer.json");
  Write("m/tokenizer.model", "x");
  EXPECT_NE(Said().find("holds tokenizer.model alone"), std::string::npos) << Said();
}

TEST_F(InspectTest, RowsAndSavedFoldersAreFound) {
  Write("b.jsonl", "{}");
  ASSERT_TRUE(MakeFolders(Path("saved")).ok());
  Write("saved/state.json", "{}");
  Write("odd[1:2].txt", "text");
  for (const char* name : {"b.jsonl[0:200]", "b.jsonl[:5]", "saved", "saved[3:]", "odd[1:2].txt"}) {
    spec_.mutable_data()->add_validation(Path(name));
  }
  EXPECT_EQ(Said(), "");
  for (const char* name : {"c.jsonl[0:200]", "b.jsonl[x:2]", "b.jsonl[1]"}) {
    spec_.mutable_data()->clear_validation();
    spec_.mutable_data()->add_validation(Path(name));
    EXPECT_NE(Said().find("does not exist"), std::string::npos) << name;
  }
}

TEST_F(InspectTest, DataThatIsNoText) {
  Write("empty.txt", "");
  spec_.mutable_data()->add_validation(Path("empty.txt"));
  spec_.mutable_data()->add_validation(Path("m"));
  EXPECT_EQ(Said(),
            "data.validation[0]: R/empty.txt is empty; delete it from the list\n"
            "data.validation[1]: R/m is not a file; list the text files themselves\n");
}

}  // namespace
}  // namespace tandem
