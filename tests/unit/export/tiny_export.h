// A job folder with a disturbed tiny model, ready to export.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/unit/evaluate/tiny_model.h"
#include "tests/unit/model_files/folder.h"
#include "worker/export/export.h"

namespace tandem {

inline constexpr const char* kTinyReport =
    R"({"version":1,"verdict":"balanced","verdict_reason":"all is well","sequences":64,"sequence_length":512,)"
    R"("components":{"softmax":{"loss":1.0,"perplexity":2.718,"recovered":1.0},"hybrid":{"loss":1.5,"perplexity":4.48,"recovered":null}},"seconds":3.5})";

class TinyExport {
 public:
  // `family`: keys of config.json that replace the Llama's. `attention`: what the conversion is.
  explicit TinyExport(bool tied, const std::string& dtype = "float32",
                      const nlohmann::json& family = nlohmann::json::object(),
                      const AttentionPlan& attention = {}) {
    nlohmann::json config = nlohmann::json::parse(TinyConfigJson(tied));
    config.update(family);
    EXPECT_TRUE(WriteRandomModel(folder_.File("base"), config.dump(1)).ok());
    EXPECT_TRUE(WriteFileDurably(folder_.File("base/tokenizer.json"), Tokenizer()).ok());
    EXPECT_TRUE(WriteFileDurably(folder_.File("base/generation_config.json"),
                                 "{\"bos_token_id\": 0, \"eos_token_id\": 1}\n")
                    .ok());
    EXPECT_TRUE(WriteTinyText(folder_.File("validation"), 10, 33).ok());
    model_ = Llama::Load(folder_.File("base")).value();
    validation_ = TokenShard::Open(folder_.File("validation")).value();
    plan_.job_name = "tiny";
    plan_.job_uid = "u1";
    plan_.seed = 7;
    plan_.model = folder_.File("base");
    plan_.job_folder = folder_.File("job");
    plan_.data.tokens = folder_.path();
    plan_.spec_json = R"({"name":"tiny"})";
    plan_.export_dtype = dtype;
    plan_.export_classes = std::string(TANDEM_SOURCE_DIR) + "/python/hybrid_linear";
    plan_.attention = attention;
    plan_.attention.window_size = 8;
    plan_.attention.feature_dim = 16;
    ParameterOptions options;
    options.feature_dim = 16;
    options.feature_map = FeatureMapKindFromWord(attention.feature_map_kind);
    options.feature_map_bias = attention.feature_map_bias;
    options.tie_kv_heads = attention.tie_kv_heads;
    options.mixing_factor = attention.mixing_factor;
    options.lora.rank = 4;
    options.lora.targets = {"q_proj", "k_proj", "v_proj", "o_proj"};
    parameters_ = std::make_unique<Parameters>(model_->config(), options);
    DisturbParameters(*parameters_);
  }
  Result<ExportedModel> Run(int64_t max_shard_bytes = 0) {
    return ExportModel({plan_, *model_, *parameters_, *validation_, kTinyReport, max_shard_bytes});
  }
  Plan& plan() { return plan_; }
  const Llama& model() const { return *model_; }
  const Parameters& parameters() const { return *parameters_; }
  std::string Artifact(const std::string& name) const {
    return folder_.File("job/artifacts/" + name);
  }
  std::string Base(const std::string& name) const { return folder_.File("base/" + name); }

 private:
  // A word per id: what the tokenizers library reads.
  static std::string Tokenizer() {
    nlohmann::json vocabulary = nlohmann::json::object();
    for (int64_t i = 0; i < kTinyVocab; ++i) vocabulary["w" + std::to_string(i)] = i;
    return nlohmann::json{
        {"version", "1.0"},
        {"truncation", nullptr},
        {"padding", nullptr},
        {"added_tokens", nlohmann::json::array()},
        {"normalizer", nullptr},
        {"pre_tokenizer", {{"type", "Whitespace"}}},
        {"post_processor", nullptr},
        {"decoder", nullptr},
        {"model", {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "w0"}}}}
        .dump();
  }
  TestFolder folder_;
  Plan plan_;
  std::unique_ptr<Llama> model_;
  std::unique_ptr<Parameters> parameters_;
  std::unique_ptr<TokenShard> validation_;
};

}  // namespace tandem
