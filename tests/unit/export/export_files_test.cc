#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "tests/unit/export/tiny_export.h"
#include "worker/export/directory_files.h"

namespace tandem {
namespace {

using nlohmann::json;

TEST(ExportFiles, ConfigFollowsTheRulesOfTheClasses) {
  Plan plan;
  plan.export_dtype = "bfloat16";
  plan.attention.window_sinks = 2;
  const std::string base = TinyConfigJson(true);
  const ModelConfig config = ParseModelConfig(base, "c").value();
  const json root = json::parse(ExportConfigJson(base, config, plan).value());
  EXPECT_EQ(root["architectures"], json::array({"HybridLinearForCausalLM"}));
  EXPECT_EQ(root["model_type"], "hybrid_linear");
  EXPECT_EQ(root["base_model_type"], "llama");
  EXPECT_EQ(root["auto_map"].size(), 3u);
  EXPECT_EQ(root["rope_theta"], 10000.0);
  EXPECT_EQ(root["rope_parameters"], (json{{"rope_type", "default"}, {"rope_theta", 10000.0}}));
  EXPECT_TRUE(root["rope_scaling"].is_null());
  EXPECT_EQ(root["dtype"], "bfloat16");
  EXPECT_EQ(root["torch_dtype"], "bfloat16");
  EXPECT_FALSE(root.contains("layer_types"));
  EXPECT_EQ(root["vocab_size"], kTinyVocab);  // the base's keys stay
  EXPECT_EQ(
      root["hybrid"],
      (json{{"version", 1},
            {"mode", "hybrid"},
            {"window", {{"kind", "sliding"}, {"size", 64}, {"sinks", 2}, {"align_end", false}}},
            {"linear", {{"span", "outside"}}},
            {"feature_map",
             {{"kind", "hedgehog"},
              {"dim", 64},
              {"two_sided", true},
              {"bias", false},
              {"tie_kv_heads", false}}},
            {"mixing",
             {{"kind", "shared"}, {"factor", "sigmoid"}, {"affine", false}, {"window_gain", 1.0}}},
            {"retain", {{"kv_groups", json::array()}}},
            {"cache", {{"size", 0}}},
            {"compat", "none"}}));
}

TEST(ExportFiles, ConfigTellsEveryOptionOfTheAttention) {
  Plan plan;
  plan.served_mode = "linear_only";
  plan.attention.feature_map_kind = "relu";
  plan.attention.feature_map_two_sided = false;
  plan.attention.feature_map_bias = true;
  plan.attention.tie_kv_heads = true;
  plan.attention.window_kind = "terraced";
  plan.attention.window_align_end = true;
  plan.attention.compat = "lolcats";
  plan.attention.mixing_kind = "mass";
  plan.attention.mixing_affine = true;
  plan.attention.window_gain = 10;
  plan.attention.cache_size = 128;
  plan.attention.retained = {{0, 1}, {5, 2}};
  const std::string base = TinyConfigJson(true);
  const json root =
      json::parse(ExportConfigJson(base, ParseModelConfig(base, "c").value(), plan).value());
  const json& hybrid = root["hybrid"];
  EXPECT_EQ(hybrid["mode"], "linear_only");
  EXPECT_EQ(hybrid["feature_map"], (json{{"kind", "relu"},
                                         {"dim", 64},
                                         {"two_sided", false},
                                         {"bias", true},
                                         {"tie_kv_heads", true}}));
  EXPECT_EQ(hybrid["window"],
            (json{{"kind", "terraced"}, {"size", 64}, {"sinks", 0}, {"align_end", true}}));
  EXPECT_EQ(hybrid["compat"], "lolcats");
  EXPECT_EQ(
      hybrid["mixing"],
      (json{{"kind", "mass"}, {"factor", "sigmoid"}, {"affine", true}, {"window_gain", 10.0}}));
  EXPECT_EQ(hybrid["retain"]["kv_groups"], (json{{0, 1}, {5, 2}}));
  EXPECT_EQ(hybrid["cache"]["size"], 128);
}

TEST(ExportFiles, ConfigOfAFamilyLosesItsOwnWindowAndKeepsItsName) {
  json base = json::parse(TinyConfigJson(false));
  base["model_type"] = "qwen2";
  base["use_sliding_window"] = true;
  base["sliding_window"] = 4096;
  base["max_window_layers"] = 0;
  const ModelConfig config = ParseModelConfig(base.dump(), "c").value();
  const json root = json::parse(ExportConfigJson(base.dump(), config, Plan()).value());
  EXPECT_EQ(root["base_model_type"], "qwen2");
  EXPECT_EQ(root["attention_bias"], false);
  for (const char* key : {"use_sliding_window", "sliding_window", "max_window_layers"}) {
    EXPECT_FALSE(root.contains(key)) << key;
  }
  const ModelConfig again = ParseModelConfig(root.dump(), "c").value();
  EXPECT_TRUE(again.qkv_bias);
  EXPECT_EQ(again.sliding_window, 0);
}

TEST(ExportFiles, ScaledRopeStandsInBothSpellings) {
  json base = json::parse(TinyConfigJson(true));
  base["rope_scaling"] = {{"type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 256}};
  const ModelConfig config = ParseModelConfig(base.dump(), "c").value();
  const json root = json::parse(ExportConfigJson(base.dump(), config, Plan()).value());
  EXPECT_EQ(root["rope_parameters"]["rope_theta"], 10000.0);
  json scaling = root["rope_parameters"];
  scaling.erase("rope_theta");
  EXPECT_EQ(root["rope_scaling"], scaling);
  // What was written means the same when it is read.
  json again = root;
  again["model_type"] = "llama";
  const ModelConfig reread = ParseModelConfig(again.dump(), "c").value();
  EXPECT_EQ(RopeInverseFrequencies(reread.rope, 16), RopeInverseFrequencies(config.rope, 16));
}

TEST(ExportFiles, TokenizerFilesAreCopiedAndTheClassMended) {
  for (const auto& [written, expected] :
       {std::pair<std::string, std::string>{"", "PreTrainedTokenizerFast"},
        {R"({"tokenizer_class": "TokenizersBackend", "bos_token": "<s>"})",
         "PreTrainedTokenizerFast"},
        {R"({"bos_token":"<s>"})", "PreTrainedTokenizerFast"},
        {R"({ "tokenizer_class":"LlamaTokenizer" })", "LlamaTokenizer"}}) {
    TinyExport job(true);
    if (!written.empty()) {
      ASSERT_TRUE(WriteFileDurably(job.Base("tokenizer_config.json"), written).ok());
    }
    ASSERT_TRUE(WriteFileDurably(job.Base("LICENSE.txt"), "free").ok());
    const auto exported = job.Run();
    ASSERT_TRUE(exported.ok()) << exported.status().ToString();
    const auto read = [&](const std::string& name) {
      return ReadFile(JoinPath(exported->directory, name)).value();
    };
    EXPECT_EQ(json::parse(read("tokenizer_config.json"))["tokenizer_class"], expected);
    if (expected == "LlamaTokenizer") {
      EXPECT_EQ(read("tokenizer_config.json"), written);  // byte for byte
    }
    for (const char* name : {"tokenizer.json", "generation_config.json", "LICENSE.txt"}) {
      EXPECT_EQ(read(name), ReadFile(job.Base(name)).value()) << name;
    }
  }
}

TEST(ExportFiles, ManifestNamesEveryFileAndInput) {
  TinyExport job(true);
  const auto exported = job.Run();
  ASSERT_TRUE(exported.ok());
  const std::string text = ReadFile(JoinPath(exported->directory, "manifest.json")).value();
  EXPECT_EQ(Sha256Hex(text), exported->manifest_sha256);
  const json manifest = json::parse(text);
  const auto names = ListFolder(exported->directory).value();
  for (const std::string& name : names) {
    if (name == "manifest.json") continue;
    EXPECT_EQ(manifest["files"][name], Sha256OfFile(JoinPath(exported->directory, name)).value())
        << name;
  }
  EXPECT_EQ(manifest["base"]["files"]["model.safetensors"],
            Sha256OfFile(job.Base("model.safetensors")).value());
  EXPECT_EQ(manifest["seed"], 7);
  EXPECT_EQ(manifest["spec"]["name"], "tiny");
  EXPECT_EQ(manifest["results"]["verdict"], "balanced");
  EXPECT_FALSE(manifest["results"].contains("seconds"));
}

TEST(ExportFiles, ModelCardTellsTheVerdict) {
  Plan plan;
  plan.job_name = "projects/default/jobs/tiny";
  plan.model = "/models/base-4m";
  const std::string card = ModelCard(plan, kTinyReport).value();
  EXPECT_NE(card.find("Verdict: **balanced**. all is well."), std::string::npos) << card;
  EXPECT_NE(card.find("| `softmax` | the base, full softmax attention | 1.0000 | 2.72 | 100 % |"),
            std::string::npos)
      << card;
  EXPECT_NE(
      card.find(
          "| `hybrid` | linear attention and window together: this model, as it is used | 1.5000 | "
          "4.48 | – |"),
      std::string::npos)
      << card;
  EXPECT_NE(ModelCard(plan, "").value().find("without an evaluation"), std::string::npos);
  EXPECT_NE(card.find("\n# tiny\n"), std::string::npos) << card;
  EXPECT_NE(card.find("with a sliding softmax window of 64 tokens"), std::string::npos) << card;
  EXPECT_NE(card.find("constant memory, whatever"), std::string::npos) << card;
  EXPECT_EQ(card.find("adapter"), std::string::npos) << card;
  plan.attention.retained = {{5, 2}};
  plan.recipe = "ssd";
  plan.export_adapter = true;
  const std::string other =
      ModelCard(plan, R"({"recall":{"value":0.9,"words":"90 % of the base's"}})").value();
  for (const char* part : {"stay softmax (layer.group): 5.2", "by the recipe `ssd`",
                           "`adapter/` holds", "beyond the window's reach: 90 % of the base's"}) {
    EXPECT_NE(other.find(part), std::string::npos) << part << other;
  }
  plan.served_mode = "linear_only";
  const std::string linear = ModelCard(plan, kTinyReport).value();
  EXPECT_EQ(linear.find("softmax window of"), std::string::npos) << linear;
  EXPECT_NE(linear.find("`linear_only` | the linear branch alone: this model, as it is used"),
            std::string::npos)
      << linear;
}

}  // namespace
}  // namespace tandem
