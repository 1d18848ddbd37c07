// Rules for stages, evaluation and export.
#include <algorithm>
#include <set>

#include "spec/fields.h"
#include "spec/rules.h"

namespace tandem {
namespace {

template <typename Stage>
void CheckSteps(const std::string& path, const Stage& stage, int64_t ranks, ViolationList& out) {
  if (stage.warmup_steps() > stage.steps()) {
    out.AddUnless({path + ".steps"}, path + ".warmup_steps",
                  "is " + std::to_string(stage.warmup_steps()) + "; must be at most " + path +
                      ".steps, which is " + std::to_string(stage.steps()));
  }
  if (ranks >= 1 && stage.batch_size() % ranks != 0) {
    out.AddUnless({"parallelism.data"}, path + ".batch_size",
                  "is " + std::to_string(stage.batch_size()) +
                      "; must be a multiple of parallelism.data, which is " +
                      std::to_string(ranks));
  }
}

// Which options have nothing to act on in the mode that is trained.
void CheckMode(const std::string& path, const v1::FinetuneSpec& stage, ViolationList& out) {
  const std::string beside = "is \"" + stage.mode() + "\" beside ";
  const std::string no_window = stage.mode() == "linear_only"
                                    ? "; linear_only has no window: choose hybrid"
                                    : "; window_only is nothing but the window: choose hybrid";
  if (stage.mode() == "hybrid") return;
  if (stage.ssd().schedule_size() > 0) {
    out.AddUnless({}, path + ".mode", beside + "a dropout schedule of the window" + no_window);
  } else if (stage.ssd().window_schedule_size() > 0) {
    out.AddUnless({}, path + ".mode", beside + "a schedule of window sizes" + no_window);
  } else if (stage.mode() == "window_only" && stage.train_maps()) {
    out.AddUnless({}, path + ".mode",
                  beside + path + ".train_maps; window_only has no feature maps: choose hybrid");
  }
}

void CheckWindowSchedule(const std::string& path, const v1::FinetuneSpec& stage,
                         int64_t window_size, ViolationList& out) {
  const auto& sizes = stage.ssd().window_schedule();
  const std::string field = path + ".ssd.window_schedule";
  for (int i = 0; i < sizes.size(); ++i) {
    if (sizes[i] <= window_size) continue;
    out.AddUnless({"attention.window.size"}, ItemPath(field, i),
                  "is " + std::to_string(sizes[i]) + "; must be at most attention.window.size, " +
                      "which is " + std::to_string(window_size));
  }
  if (sizes.empty() || sizes[sizes.size() - 1] >= window_size) return;
  out.AddUnless({"attention.window.size"}, field,
                "ends with " + std::to_string(sizes[sizes.size() - 1]) +
                    "; must end with attention.window.size, which is " +
                    std::to_string(window_size));
}

void CheckObjectives(const std::string& path, const v1::FinetuneSpec& stage, ViolationList& out) {
  if (stage.distill_weight() >= 1) {
    out.AddUnless({}, path + ".distill_weight",
                  "is " + NumberText(stage.distill_weight()) + "; must be below 1; for 1 choose " +
                      path + ".objective distill");
  }
}

void CheckMixture(const std::string& path, const v1::AttentionTransferSpec& stage,
                  ViolationList& out) {
  const auto& mixture = stage.mixture();
  if (stage.objective() != "mixture") return;
  if (mixture.weights() > 0 || mixture.outputs() > 0 || mixture.hybrid_outputs() > 0) return;
  out.AddUnless(
      {path + ".mixture.weights", path + ".mixture.outputs", path + ".mixture.hybrid_outputs"},
      path + ".mixture", "is 0 throughout; give one of its losses a factor above 0");
}

// Its loss weighs each key by the one branch that has it.
void CheckHybridWeights(const std::string& path, const v1::AttentionTransferSpec& stage,
                        const v1::AttentionSpec& attention, ViolationList& out) {
  const bool apart = attention.linear().span() == "outside" && attention.compat() == "none";
  if (stage.objective() != "hybrid_weights" || apart) return;
  out.AddUnless({"attention.linear.span", "attention.compat"}, path + ".objective",
                "is \"hybrid_weights\", which needs each key in one branch alone: "
                "attention.linear.span outside and attention.compat none; choose these, or "
                "hybrid_outputs");
}

// A patience as long as the stage would measure for nothing.
void CheckTransferStop(const std::string& path, const v1::AttentionTransferSpec& stage,
                       ViolationList& out) {
  const auto& stop = stage.early_stop();
  // Specs that are still wrong come here too: in reals nothing overflows.
  const double earliest =
      static_cast<double>(stop.patience()) * static_cast<double>(stop.every_steps());
  if (stop.patience() == 0 || earliest < static_cast<double>(stage.steps())) return;
  out.AddUnless({path + ".steps", path + ".early_stop.every_steps"}, path + ".early_stop.patience",
                "is " + std::to_string(stop.patience()) + " with " + path +
                    ".early_stop.every_steps " + std::to_string(stop.every_steps()) +
                    ": no layer could stop before step " + NumberText(earliest) + ", and " + path +
                    ".steps is " + std::to_string(stage.steps()) +
                    "; lower one of the two, or set patience to 0 to stop none");
}

void CheckFinetune(const std::string& path, const v1::FinetuneSpec& stage, int64_t window_size,
                   ViolationList& out) {
  CheckMode(path, stage, out);
  CheckWindowSchedule(path, stage, window_size, out);
  CheckObjectives(path, stage, out);
  std::set<std::string> seen;
  for (int i = 0; i < stage.lora().targets_size(); ++i) {
    const auto& target = stage.lora().targets(i);
    const std::string item = ItemPath(path + ".lora.targets", i);
    if (!seen.insert(target).second)
      out.AddUnless({}, item, "is " + Quoted(target) + " a second time; keep one");
  }
}

// Long-range prompts: false and a violation where they are too short to hold anything.
template <typename Prompts>
bool CheckLength(const std::string& path, const Prompts& prompts, ViolationList& out) {
  if (prompts.prompts() == 0) return false;
  if (prompts.length() >= kShortestPasskey) return true;
  out.AddUnless({"data.sequence_length", path + ".prompts"}, path + ".length",
                "is " + std::to_string(prompts.length()) + "; must be at least " +
                    std::to_string(kShortestPasskey) + "; or set " + path + ".prompts to 0");
  return false;
}

template <typename Prompts>
void CheckPrompts(const std::string& path, const Prompts& prompts, ViolationList& out) {
  if (!CheckLength(path, prompts, out)) return;
  for (int i = 0; i < prompts.distances_size(); ++i) {
    if (prompts.distances(i) <= prompts.length() - kPasskeyMargin) continue;
    out.AddUnless({"data.sequence_length", path + ".length"}, ItemPath(path + ".distances", i),
                  "is " + std::to_string(prompts.distances(i)) + "; must be at most " +
                      std::to_string(prompts.length() - kPasskeyMargin) +
                      ", the prompt's length less " + std::to_string(kPasskeyMargin) +
                      " for the key and the question");
  }
}

}  // namespace

void CheckStages(const v1::JobSpec& resolved, bool from_recipe, ViolationList& out) {
  const int64_t window = resolved.attention().window().size();
  for (int i = 0; i < resolved.stages_size(); ++i) {
    const auto& stage = resolved.stages(i);
    const std::string prefix = from_recipe ? "" : ItemPath("stages", i) + ".";
    const int64_t ranks = resolved.parallelism().data();
    if (stage.has_attention_transfer()) {
      CheckSteps(prefix + "attention_transfer", stage.attention_transfer(), ranks, out);
      CheckMixture(prefix + "attention_transfer", stage.attention_transfer(), out);
      CheckTransferStop(prefix + "attention_transfer", stage.attention_transfer(), out);
      CheckHybridWeights(prefix + "attention_transfer", stage.attention_transfer(),
                         resolved.attention(), out);
    } else if (stage.has_finetune()) {
      CheckSteps(prefix + "finetune", stage.finetune(), ranks, out);
      CheckFinetune(prefix + "finetune", stage.finetune(), window, out);
    }
  }
}

void CheckEvaluate(const v1::JobSpec& spec, ViolationList& out) {
  const auto& evaluate = spec.evaluate();
  if (evaluate.sinks() >= spec.data().sequence_length()) {
    out.AddUnless({"data.sequence_length"}, "evaluate.sinks",
                  "is " + std::to_string(evaluate.sinks()) +
                      "; must be below data.sequence_length, which is " +
                      std::to_string(spec.data().sequence_length()));
  }
  if (evaluate.sequences() < spec.parallelism().data()) {
    out.AddUnless({"parallelism.data"}, "evaluate.sequences",
                  "is " + std::to_string(evaluate.sequences()) +
                      "; must be at least parallelism.data, which is " +
                      std::to_string(spec.parallelism().data()));
  }
  CheckPrompts("evaluate.passkey", evaluate.passkey(), out);
  CheckPrompts("evaluate.needle", evaluate.needle(), out);
  CheckLength("evaluate.recall", evaluate.recall(), out);
  CheckLength("evaluate.key_value", evaluate.key_value(), out);
}

void CheckExport(const v1::JobSpec& resolved, ViolationList& out) {
  const bool has_lora = std::ranges::any_of(resolved.stages(),
                                            [](const auto& stage) { return stage.has_finetune(); });
  if (!resolved.export_().adapter() || has_lora) return;
  out.AddUnless({"recipe", "stages"}, "export.adapter",
                "is true, and no stage trains LoRA; delete it or add a finetune stage");
}

}  // namespace tandem
