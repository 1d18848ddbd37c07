// The promise of an export: transformers loads it and computes the same logits, greedy decoding
// with the cache included; peft loads the adapter. One Python process for all kinds.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

#include "tests/unit/export/tiny_export.h"

namespace tandem {
namespace {

const std::string& Python() {
  static const std::string python = std::string(TANDEM_SOURCE_DIR) + "/.venv-tests/bin/python";
  return python;
}

// `before`: a folder that stands before the rest on PYTHONPATH, with ':' at its end.
int RunPython(const std::string& arguments, const std::string& before = "") {
  const std::string command = "PYTHONPATH=" + before + TANDEM_SOURCE_DIR +
                              "/python HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 " + Python() + " " +
                              arguments + " 2>&1";
  return std::system(command.c_str());
}

int CheckExport(TinyExport& job) {
  return RunPython("-m tandem.check_export " + job.Artifact("model") + " --expected " +
                   job.Artifact("check.safetensors"));
}

// What a kind of export is: base, attention, mode.
struct Kind {
  bool tied = true;
  nlohmann::json family = nlohmann::json::object();
  AttentionPlan attention;
  std::string mode = "hybrid";
  int64_t max_shard_bytes = 0;
};

void SetMap(AttentionPlan& attention, const std::string& kind) {
  attention.feature_map_kind = kind;
  attention.feature_map_two_sided = IsTwoSidedKind(kind);
  attention.feature_map_bias = IsBiasedKind(kind);
}

std::map<std::string, Kind> Kinds() {
  std::map<std::string, Kind> kinds;
  kinds["tied"] = {};
  kinds["untied"].tied = false;
  kinds["untied"].attention.window_sinks = 3;
  kinds["untied"].max_shard_bytes = 20'000;
  kinds["span_all"].attention.linear_span = "all";
  kinds["linear_only"].mode = "linear_only";
  kinds["window_only"].mode = "window_only";
  kinds["biases"].family = {{"attention_bias", true}, {"mlp_bias", true}};
  kinds["biases"].attention.feature_map_kind = "exp_shifted";
  kinds["biases"].attention.tie_kv_heads = true;
  kinds["rope_linear"].family = {{"rope_scaling", {{"type", "linear"}, {"factor", 2.5}}}};
  kinds["rope_llama3"].tied = false;
  kinds["rope_llama3"].family = {{"rope_parameters",
                                  {{"rope_type", "llama3"},
                                   {"rope_theta", 10000.0},
                                   {"factor", 4.0},
                                   {"low_freq_factor", 1.0},
                                   {"high_freq_factor", 4.0},
                                   {"original_max_position_embeddings", 64}}}};
  kinds["mistral"].attention.window_kind = "terraced";
  kinds["mistral"].attention.feature_map_kind = "exp";
  kinds["mistral"].attention.mixing_affine = true;
  kinds["mistral"].family = {{"model_type", "mistral"}, {"sliding_window", nullptr}};
  kinds["qwen2"].tied = false;
  kinds["qwen2"].family = {{"model_type", "qwen2"}};
  kinds["qwen3"].family = {{"model_type", "qwen3"}, {"head_dim", 24}};
  SetMap(kinds["qwen2"].attention, "relu");
  kinds["qwen3"].attention.retained = {{1, 0}};
  SetMap(kinds["elu_gain"].attention, "elu");
  kinds["elu_gain"].attention.mixing_factor = "exp";
  kinds["elu_gain"].attention.window_gain = 10;
  kinds["sparse_cache"].attention.cache_size = 5;
  kinds["sparse_cache"].attention.window_sinks = 2;
  kinds["sparse_cache"].attention.window_gain = 10;
  kinds["mass_tied"].attention.mixing_kind = "mass";
  kinds["mass_tied"].attention.tie_kv_heads = true;
  SetMap(kinds["relu_linear_only"].attention, "relu");
  kinds["relu_linear_only"].attention.tie_kv_heads = true;
  kinds["relu_linear_only"].attention.retained = {{0, 0}, {0, 1}};  // a whole layer
  kinds["relu_linear_only"].mode = "linear_only";
  kinds["one_side_biased"].attention.feature_map_two_sided = false;
  kinds["one_side_biased"].attention.feature_map_bias = true;
  kinds["relu_both_sides"].attention.feature_map_kind = "relu";  // two-sided, no bias
  kinds["as_lolcats"].attention.window_kind = "terraced";
  kinds["as_lolcats"].attention.window_align_end = true;
  kinds["as_lolcats"].attention.compat = "lolcats";
  return kinds;
}

TEST(Transformers, LoadsEveryKindAndGivesTheSameLogits) {
  if (!PathExists(Python())) GTEST_SKIP() << Python() << " is not there; run tests/run.sh once";
  std::map<std::string, std::unique_ptr<TinyExport>> jobs;
  std::string arguments = std::string(TANDEM_SOURCE_DIR) + "/tests/unit/export/check_exports.py";
  for (const auto& [name, kind] : Kinds()) {
    jobs[name] = std::make_unique<TinyExport>(kind.tied, "float32", kind.family, kind.attention);
    jobs[name]->plan().served_mode = kind.mode;
    const auto exported = jobs[name]->Run(kind.max_shard_bytes);
    ASSERT_TRUE(exported.ok()) << name << ": " << exported.status().ToString();
    arguments += " " + name + "=" + jobs[name]->Artifact("");
  }
  EXPECT_EQ(RunPython(arguments), 0);
  const std::string older = std::string(TANDEM_SOURCE_DIR) + "/.venv-tests-4";
  if (PathExists(older)) {
    EXPECT_EQ(RunPython(arguments, older + ":"), 0);  // transformers 4
  }
}

TEST(Transformers, TheCheckSeesADifference) {
  if (!PathExists(Python())) GTEST_SKIP() << Python() << " is not there; run tests/run.sh once";
  TinyExport job(true);
  ASSERT_TRUE(job.Run().ok());
  ASSERT_EQ(CheckExport(job), 0);
  const std::string config = job.Artifact("model/config.json");
  std::string text = ReadFile(config).value();
  const size_t at = text.find("\"size\": 8");
  ASSERT_NE(at, std::string::npos);
  ASSERT_TRUE(WriteFileDurably(config, text.replace(at, 9, "\"size\": 7")).ok());
  EXPECT_NE(CheckExport(job), 0);
}

TEST(Peft, LoadsTheAdapterAndTheDelta) {
  if (!PathExists(Python())) GTEST_SKIP() << Python() << " is not there; run tests/run.sh once";
  TinyExport job(true, "float32", {{"model_type", "qwen2"}});
  job.plan().export_adapter = true;
  job.plan().export_delta = true;
  const auto exported = job.Run();
  ASSERT_TRUE(exported.ok()) << exported.status().ToString();
  EXPECT_EQ(RunPython(std::string(TANDEM_SOURCE_DIR) + "/tests/unit/export/check_adapter.py " +
                      job.Base("") + " " + job.Artifact("model")),
            0);
}

}  // namespace
}  // namespace tandem
