// Rules between fields, and what each recipe stands for. The rules are called themselves: a field
// that waits for its engine has its rules already.
#include "spec/rules.h"

#include <gtest/gtest.h>

#include <functional>

#include "spec/recipes.h"
#include "spec/spec.h"

namespace tandem {
namespace {

v1::JobSpec Job(const std::string& recipe) {
  v1::JobSpec spec;
  spec.mutable_model()->set_path("/m");
  spec.mutable_data()->add_train("/a.txt");
  spec.set_recipe(recipe);
  return spec;
}

std::string AllRules(const v1::JobSpec& spec) {
  ViolationList out;
  CheckPresence(spec, out);
  CheckDataFiles(spec.data(), out);
  const v1::JobSpec resolved = Resolve(spec);
  CheckAttention(resolved, out);
  CheckDevice(resolved, out);
  CheckStages(resolved, spec.stages_size() == 0, out);
  CheckEvaluate(resolved, out);
  CheckExport(resolved, out);
  return ViolationsToText(out.Take());
}

TEST(Rules, EachIsBrokenByItsOwnMistakeAlone) {
  struct Case {
    std::string recipe;
    std::function<void(v1::JobSpec&)> change;
    std::string message;
  };
  const Case cases[] = {
      {"ssd", [](auto& s) { s.mutable_model()->set_base("/b"); },
       "model.base stands beside recipe \"ssd\"; only diagnose takes it"},
      {"window_control", [](auto& s) { s.mutable_attention_transfer(); },
       "attention_transfer stands beside recipe \"window_control\", which has no such stage"},
      {"diagnose", [](auto& s) { s.mutable_finetune(); },
       "finetune stands beside recipe \"diagnose\", which has no such stage"},
      {"diagnose", [](auto& s) { s.mutable_data()->clear_train(); },
       "data.validation is missing; give at least one text file to measure on"},
      {"ssd", [](auto& s) { s.mutable_data()->add_weights(1), s.mutable_data()->add_weights(2); },
       "data.weights has 2 items; must have one per item of data.train, which has 1"},
      {"ssd", [](auto& s) { s.mutable_attention()->mutable_mixing()->set_kind("mass"); },
       "attention.mixing.kind is \"mass\", which cannot be trained"},
      {"inference_hybrid",
       [](auto& s) {
         s.mutable_attention()->mutable_mixing()->set_kind("mass");
         s.mutable_attention()->mutable_mixing()->set_window_gain(2);
       },
       "attention.mixing.kind is \"mass\"; it has no window factor"},
      {"ssd",
       [](auto& s) {
         s.mutable_attention()->mutable_mixing()->set_affine(true);
         s.mutable_attention()->mutable_mixing()->set_factor("exp");
       },
       "attention.mixing.affine is true; the window factor must be below 1"},
      {"ssd",
       [](auto& s) {
         s.mutable_attention()->mutable_window()->set_kind("terraced");
         s.mutable_attention()->mutable_window()->set_size(512);
       },
       "attention.window.size is 512; a terraced window holds up to twice"},
      {"ssd", [](auto& s) { s.mutable_attention()->mutable_window()->set_align_end(true); },
       "attention.window.align_end is true, and a sliding window has no blocks"},
      {"ssd", [](auto& s) { s.mutable_attention()->set_compat("lolcats"); },
       "attention.compat is \"lolcats\", which that code has with attention.window.kind terraced"},
      {"ssd",
       [](auto& s) {
         s.mutable_attention()->mutable_window()->set_kind("terraced");
         s.mutable_attention()->set_compat("lolcats");
         s.mutable_attention()->mutable_cache()->set_size(4);
       },
       "attention.compat is \"lolcats\", which that code has with"},
      {"ssd",
       [](auto& s) {
         s.mutable_attention()->mutable_linear()->set_span("all");
         s.mutable_attention_transfer()->set_objective("hybrid_weights");
       },
       "attention_transfer.objective is \"hybrid_weights\", which needs each key in one branch"},
      {"ssd", [](auto& s) { s.mutable_attention()->mutable_retain()->add_kv_groups("5-2"); },
       "attention.retain.kv_groups[0] is \"5-2\"; must be \"LAYER.GROUP\""},
      {"ssd",
       [](auto& s) {
         s.mutable_attention()->mutable_retain()->add_kv_groups("5.2");
         s.mutable_attention()->mutable_retain()->set_auto_(1);
       },
       "attention.retain.auto stands beside attention.retain.kv_groups"},
      {"ssd", [](auto& s) { s.mutable_model()->set_dtype("bfloat16"); },
       "model.dtype is \"bfloat16\", which needs parallelism.device cuda"},
      {"ssd", [](auto& s) { s.mutable_finetune()->set_mode("window_only"); },
       "finetune.mode is \"window_only\" beside a dropout schedule of the window"},
      {"linear", [](auto& s) { s.mutable_finetune()->mutable_ssd()->add_window_schedule(64); },
       "finetune.mode is \"linear_only\" beside a schedule of window sizes"},
      {"window_control", [](auto& s) { s.mutable_finetune()->set_train_maps(true); },
       "finetune.mode is \"window_only\" beside finetune.train_maps"},
      {"ssd", [](auto& s) { s.mutable_finetune()->mutable_ssd()->add_window_schedule(65); },
       "finetune.ssd.window_schedule[0] is 65; must be at most attention.window.size"},
      {"ssd", [](auto& s) { s.mutable_finetune()->mutable_ssd()->add_window_schedule(8); },
       "finetune.ssd.window_schedule ends with 8; must end with attention.window.size"},
      {"ssd", [](auto& s) { s.mutable_finetune()->set_distill_weight(1); },
       "finetune.distill_weight is 1; must be below 1"},
      {"ssd",
       [](auto& s) {
         auto& transfer = *s.mutable_attention_transfer();
         transfer.set_objective("mixture");
         transfer.mutable_mixture()->set_weights(0);
         transfer.mutable_mixture()->set_hybrid_outputs(0);
       },
       "attention_transfer.mixture is 0 throughout"},
      {"ssd",
       [](auto& s) {
         s.mutable_attention_transfer()->set_steps(100);
         s.mutable_attention_transfer()->mutable_early_stop()->set_patience(4);
       },
       "attention_transfer.early_stop.patience is 4 with "
       "attention_transfer.early_stop.every_steps 25: no layer could stop before step 100, and "
       "attention_transfer.steps is 100; lower one of the two, or set patience to 0"},
      {"ssd",
       [](auto& s) {
         auto& recall = *s.mutable_evaluate()->mutable_recall();
         recall.set_prompts(1), recall.set_length(64);
       },
       "evaluate.recall.length is 64; must be at least 128; or set evaluate.recall.prompts to 0"},
      {"diagnose", [](auto& s) { s.mutable_export_()->set_adapter(true); },
       "export.adapter is true, and no stage trains LoRA"},
  };
  for (const auto& [recipe, change, message] : cases) {
    v1::JobSpec spec = Job(recipe);
    EXPECT_EQ(AllRules(spec), "") << recipe;
    change(spec);
    const std::string text = AllRules(spec);
    EXPECT_TRUE(text.starts_with(message)) << "wanted: " << message << "\ngot: " << text;
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  }
}

TEST(Recipes, StandForTheStagesOfTheMethod) {
  const auto stages = [](const std::string& recipe) {
    std::string text;
    const v1::JobSpec resolved = Resolve(Job(recipe));
    for (const auto& stage : resolved.stages()) {
      text += stage.has_attention_transfer()
                  ? stage.attention_transfer().objective() + " "
                  : stage.finetune().mode() + (stage.finetune().train_maps() ? "+maps" : "") +
                        (stage.finetune().train_factor() ? "+factor" : "");
    }
    return text + " -> " + ServedMode(resolved);
  };
  EXPECT_EQ(stages("linear"), "weights linear_only -> linear_only");
  EXPECT_EQ(stages("inference_hybrid"), "weights linear_only -> hybrid");
  EXPECT_EQ(stages("lolcats"), "hybrid_outputs hybrid -> hybrid");
  EXPECT_EQ(stages("hedgecats"), "weights hybrid+maps+factor -> hybrid");
  EXPECT_EQ(stages("ssd"), "weights hybrid+maps+factor -> hybrid");
  EXPECT_EQ(stages("window_control"), "window_only -> window_only");
  EXPECT_EQ(stages("diagnose"), " -> hybrid");
  const v1::FinetuneSpec hedgecats = Resolve(Job("hedgecats")).stages(1).finetune();
  EXPECT_EQ(hedgecats.early_stop().component(), "linear_only");
  EXPECT_EQ(hedgecats.learning_rate(), 3e-4);
}

TEST(Recipes, ResolvingTwiceChangesNothing) {
  for (const char* recipe :
       {"linear", "inference_hybrid", "hedgecats", "window_control", "diagnose"}) {
    const auto once = Resolve(Job(recipe));
    EXPECT_EQ(CanonicalJson(Resolve(once)), CanonicalJson(once)) << recipe;
    ViolationList out;
    CheckPresence(once, out);
    EXPECT_EQ(ViolationsToText(out.Take()), "") << recipe;
  }
}

TEST(Recipes, RetainedGroupsAreLayerAndGroup) {
  EXPECT_EQ(ReadRetainedText("5.2")->layer, 5);
  EXPECT_EQ(ReadRetainedText("5.2")->group, 2);
  EXPECT_EQ(ReadRetainedText("11")->layer, 11);
  EXPECT_FALSE(ReadRetainedText("11")->group.has_value());
  for (const char* text : {"", ".", "5.", ".2", "5.2.1", "-1", "a", "5,2", "1234567"}) {
    EXPECT_FALSE(ReadRetainedText(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace tandem
