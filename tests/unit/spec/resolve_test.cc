// Defaults, recipes, and the three ways to write a spec down.
#include <gtest/gtest.h>

#include "base/files.h"
#include "spec/json.h"
#include "spec/spec.h"

namespace tandem {
namespace {

v1::JobSpec Read(const std::string& yaml) {
  const auto outcome = ReadSpec(yaml, "/base");
  EXPECT_EQ(ViolationsToText(outcome.violations), "") << yaml;
  return outcome.parsed.spec;
}

v1::JobSpec Minimal(const std::string& rest) {
  return Read("model: {path: m}\ndata: {train: [a.txt]}\n" + rest);
}

TEST(Resolve, SsdInFull) {
  const v1::JobSpec resolved = Resolve(Minimal("recipe: ssd\n"));
  EXPECT_EQ(SpecToYaml(resolved), R"(name: ssd
project: default
priority: 0
seed: 0
model:
  path: /base/m
  dtype: float32
data:
  train: [/base/a.txt]
  validation_fraction: 0.02
  sequence_length: 1024
  max_documents: 0
  document_mask: false
  text_key: text
  train_on_prompt: false
recipe: ssd
stages:
  - attention_transfer:
      objective: weights
      steps: 2441
      batch_size: 8
      learning_rate: 0.01
      warmup_steps: 30
      mixture:
        weights: 1
        outputs: 0
        hybrid_outputs: 1
      early_stop:
        patience: 0
        every_steps: 25
        min_gain: 0.001
        sequences: 16
  - finetune:
      mode: hybrid
      steps: 2441
      batch_size: 8
      learning_rate: 0.001
      warmup_steps: 30
      train_maps: true
      clip_norm: 1
      lora:
        rank: 8
        alpha: 16
        targets: [q_proj, k_proj, v_proj, o_proj]
      ssd:
        schedule: [0.9, 0.75, 0.5]
        granularity: micro_batch
        dropped_span: all
      train_factor: true
      objective: next_token
      distill_weight: 0.5
      early_stop:
        component: none
        every_steps: 25
        slack: 0
        sequences: 16
attention:
  feature_map:
    kind: hedgehog
    dim: 0
    tie_kv_heads: false
    two_sided: true
    bias: false
  window:
    kind: sliding
    size: 64
    sinks: 0
    max_grad: through
    align_end: false
  linear:
    span: outside
  mixing:
    factor: sigmoid
    initial: 0.1
    kind: shared
    affine: false
    window_gain: 1
  retain:
    auto: 0
  cache:
    size: 0
  compat: none
parallelism:
  data: 1
  threads_per_rank: 0
  device: cpu
checkpoint:
  every_steps: 0
  every_seconds: 60
  keep: 2
evaluate:
  sequences: 64
  sinks: 8
  bootstrap: 1000
  passkey:
    prompts: 32
    distances: [16, 128, 896]
    length: 1024
  suite_items: 0
  suite_modes: [softmax, hybrid, window_only, linear_only]
  bos: model
  needle:
    prompts: 0
    length: 1024
  recall:
    prompts: 0
    facts: [4, 8]
    length: 1024
  key_value:
    prompts: 0
    pairs: [4, 8]
    length: 1024
export:
  dtype: float32
  adapter: false
  delta: false
  max_shard_mb: 5000
)");
}

TEST(Resolve, RecipesDifferWhereTheMethodSays) {
  const auto lolcats = Resolve(Minimal("recipe: lolcats\n"));
  EXPECT_EQ(lolcats.stages(0).attention_transfer().objective(), "hybrid_outputs");
  EXPECT_FALSE(lolcats.stages(1).finetune().train_maps());
  EXPECT_EQ(lolcats.stages(1).finetune().ssd().schedule_size(), 0);
}

// At the usual factor and schedule the example model loses the recall its retained group carries.
TEST(Resolve, SsdWithRetainedGroupsKeepsTheirRecall) {
  for (const std::string retain : {"auto: 1", "kv_groups: [\"1.0\"]"}) {
    const auto resolved = Resolve(Minimal("recipe: ssd\nattention: {retain: {" + retain + "}}\n"));
    EXPECT_EQ(resolved.attention().mixing().factor(), "exp");
    EXPECT_EQ(resolved.attention().mixing().initial(), 2);
    const auto& schedule = resolved.stages(1).finetune().ssd().schedule();
    EXPECT_EQ(std::vector<double>(schedule.begin(), schedule.end()),
              std::vector<double>({0.9, 0.5, 0}));
  }
}

TEST(Resolve, WhatIsGivenBesideRetainedGroupsStays) {
  const auto initial_of = [](const std::string& recipe, const std::string& attention) {
    const auto resolved = Resolve(
        Minimal("recipe: " + recipe + "\nattention: {retain: {auto: 1}" + attention + "}\n"));
    return resolved.attention().mixing().factor() + " " +
           std::to_string(resolved.attention().mixing().initial());
  };
  EXPECT_EQ(initial_of("ssd", ", mixing: {initial: 0.5}"), "sigmoid 0.500000");
  EXPECT_EQ(initial_of("ssd", ", mixing: {factor: sigmoid}"), "sigmoid 0.100000");
  EXPECT_EQ(initial_of("ssd", ", mixing: {affine: true}"), "sigmoid 0.100000");
  EXPECT_EQ(initial_of("lolcats", ""), "sigmoid 0.100000");
  const auto scheduled = Resolve(
      Minimal("recipe: ssd\nattention: {retain: {auto: 1}}\nfinetune: {ssd: {schedule: [0.4]}}\n"));
  EXPECT_EQ(scheduled.stages(1).finetune().ssd().schedule_size(), 1);
}

TEST(Resolve, OverridesGoIntoTheRecipesStages) {
  const auto resolved = Resolve(Minimal(
      "recipe: ssd\nattention_transfer: {steps: 5}\nfinetune: {ssd: {schedule: [0.5, 0]}}\n"));
  EXPECT_FALSE(resolved.has_attention_transfer());
  EXPECT_FALSE(resolved.has_finetune());
  EXPECT_EQ(resolved.stages(0).attention_transfer().steps(), 5);
  EXPECT_EQ(resolved.stages(0).attention_transfer().warmup_steps(), 5)
      << "warm-up never exceeds the steps";
  ASSERT_EQ(resolved.stages(1).finetune().ssd().schedule_size(), 2);
  EXPECT_EQ(resolved.stages(1).finetune().ssd().schedule(0), 0.5);
}

TEST(Resolve, AFeatureMapIsWhatItsKindSaysUnlessTold) {
  const auto map = [](const std::string& text) {
    return Resolve(Minimal("recipe: ssd\nattention: {feature_map: {" + text + "}}\n"))
        .attention()
        .feature_map();
  };
  EXPECT_TRUE(map("kind: exp").two_sided());
  EXPECT_FALSE(map("kind: exp").bias());
  EXPECT_FALSE(map("kind: elu").two_sided());
  EXPECT_FALSE(map("kind: relu").two_sided());
  EXPECT_TRUE(map("kind: relu").bias());
  EXPECT_TRUE(map("kind: relu, two_sided: true, bias: false").two_sided());
  EXPECT_FALSE(map("kind: relu, two_sided: true, bias: false").bias());
}

TEST(Resolve, ExplicitStagesKeepTheirOrder) {
  const auto resolved = Resolve(
      Minimal("stages:\n  - finetune: {steps: 1}\n  - attention_transfer: {}\n  - finetune: {}\n"));
  EXPECT_EQ(resolved.name(), "conversion");
  EXPECT_FALSE(resolved.has_recipe());
  ASSERT_EQ(resolved.stages_size(), 3);
  EXPECT_EQ(resolved.stages(0).finetune().steps(), 1);
  EXPECT_EQ(resolved.stages(1).attention_transfer().objective(), "weights");
  EXPECT_EQ(resolved.stages(2).finetune().lora().targets_size(), 4);
}

TEST(Resolve, BatchesFitTheRanksAndShortSequencesHaveNoPasskey) {
  const auto resolved =
      Resolve(Read("model: {path: m}\ndata: {train: [a.txt], sequence_length: 100}\nrecipe: "
                   "ssd\nparallelism: {data: 3}\n"));
  EXPECT_EQ(resolved.stages(0).attention_transfer().batch_size(), 9);
  EXPECT_EQ(resolved.evaluate().passkey().prompts(), 0);
  EXPECT_EQ(resolved.evaluate().passkey().distances_size(), 0);
}

// What every reader of a resolved spec relies on.
TEST(Resolve, IsIdempotentValidAndReadsBack) {
  for (const std::string rest :
       {"recipe: ssd\n", "recipe: lolcats\nname: x\nparallelism: {data: 3}\n",
        "stages:\n  - finetune: {}\n  - attention_transfer: {}\n",
        "recipe: ssd\nevaluate: {passkey: {prompts: 0}}\n",
        "recipe: ssd\nattention: {retain: {auto: 2}}\n"}) {
    const auto spec = Minimal(rest);
    const auto once = Resolve(spec);
    EXPECT_EQ(CanonicalJson(Resolve(once)), CanonicalJson(once)) << rest;
    EXPECT_EQ(ViolationsToText(Validate(once)), "") << rest;
    EXPECT_EQ(SpecSha256(spec), SpecSha256(once)) << rest;
    EXPECT_EQ(CanonicalJson(Read(SpecToYaml(once))), CanonicalJson(once)) << SpecToYaml(once);
    EXPECT_EQ(CanonicalJson(Read(SpecToYaml(spec))), CanonicalJson(spec)) << SpecToYaml(spec);
  }
}

TEST(Resolve, AChangedResolvedSpecBesideItsRecipeMustStayWhole) {
  auto resolved = Resolve(Minimal("recipe: ssd\n"));
  resolved.mutable_stages(1)->mutable_finetune()->set_steps(7);
  EXPECT_EQ(ViolationsToText(Validate(resolved)),
            "stages[1].finetune.warmup_steps is 30; must be at most stages[1].finetune.steps, "
            "which is 7\n");
  resolved.mutable_stages(1)->mutable_finetune()->clear_mode();
  EXPECT_NE(ViolationsToText(Validate(resolved)).find("stages stands beside recipe"),
            std::string::npos);
}

TEST(SpecSha256, CoversWhatIsComputedAndNothingElse) {
  const auto base = Minimal("recipe: ssd\n");
  auto other = base;
  other.set_name("other");
  other.set_project("team");
  other.set_priority(5);
  EXPECT_EQ(SpecSha256(other), SpecSha256(base));
  other.mutable_data()->set_sequence_length(1024);  // the default, said aloud
  EXPECT_EQ(SpecSha256(other), SpecSha256(base));
  other.set_seed(1);
  EXPECT_NE(SpecSha256(other), SpecSha256(base));
  EXPECT_EQ(SpecSha256(base).size(), 64u);
}

TEST(SpecToYaml, QuotesWhatYamlWouldMisread) {
  auto spec = Minimal("recipe: ssd\n");
  spec.mutable_model()->set_path("/base/it's #1: \"a\"\\b é");
  spec.mutable_data()->set_train(0, "/yes/null.txt");
  const auto again = ReadSpec(SpecToYaml(spec), "/");
  EXPECT_EQ(ViolationsToText(again.violations), "");
  EXPECT_EQ(CanonicalJson(again.parsed.spec), CanonicalJson(spec)) << SpecToYaml(spec);
}

TEST(ProtoToJson, NumbersStayNumbers) {
  auto spec = Minimal("recipe: ssd\nseed: 9007199254740991\n");
  EXPECT_EQ(ProtoToJson(spec)["seed"].dump(), "9007199254740991");
  EXPECT_EQ(ProtoToJson(spec)["data"]["train"].dump(), R"(["/base/a.txt"])");
}

TEST(Examples, AreValidAndTheirFilesExist) {
  const std::string folder = std::string(TANDEM_SOURCE_DIR) + "/examples";
  for (const std::string recipe : {"ssd", "lolcats"}) {
    const auto text = ReadFile(folder + "/" + recipe + ".yaml");
    ASSERT_TRUE(text.ok()) << text.status().ToString();
    const auto outcome = ReadSpec(*text, folder);
    EXPECT_EQ(ViolationsToText(outcome.violations), "") << recipe;
    EXPECT_EQ(ViolationsToText(InspectPaths(Resolve(outcome.parsed.spec))), "") << recipe;
    EXPECT_EQ(outcome.parsed.spec.recipe(), recipe);
  }
}

}  // namespace
}  // namespace tandem
