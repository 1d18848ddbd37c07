#include "spec/rules.h"

#include <map>
#include <set>

#include "spec/fields.h"
#include "spec/recipes.h"

namespace tandem {
namespace {

// What Resolve gives back: every field set, and stages in the recipe's shape.
bool IsResolved(const v1::JobSpec& spec) {
  const RecipeShape shape = ShapeOf(spec.recipe());
  const int transfer = shape.has_transfer ? 1 : 0, finetune = shape.has_finetune ? 1 : 0;
  if (spec.stages_size() != transfer + finetune) return false;
  if (shape.has_transfer && !spec.stages(0).has_attention_transfer()) return false;
  if (shape.has_finetune && !spec.stages(transfer).has_finetune()) return false;
  return CanonicalJson(Resolve(spec)) == CanonicalJson(spec);
}

void CheckRequired(const v1::JobSpec& spec, ViolationList& out) {
  const bool diagnoses = spec.recipe() == "diagnose";
  if (!spec.model().has_path())
    out.Add("model.path", "is missing; give the base model's Hugging Face directory");
  if (spec.data().train_size() == 0 && !diagnoses)
    out.Add("data.train", "is missing; give at least one text file");
  if (spec.data().train_size() == 0 && spec.data().validation_size() == 0 && diagnoses)
    out.Add("data.validation", "is missing; give at least one text file to measure on");
  if (spec.model().has_base() && !diagnoses) {
    out.Add("model.base", "stands beside recipe " + Quoted(spec.recipe()) +
                              "; only diagnose takes it: give the model in model.path");
  }
  if (!spec.has_recipe() && spec.stages_size() == 0) {
    out.Add("recipe",
            "is missing; give recipe: ssd or another, or write out stages; `tandem "
            "explain recipe` says which there are");
  }
}

// Overrides need a stage that they override.
void CheckOverrides(const v1::JobSpec& spec, ViolationList& out) {
  const auto check = [&](const char* field, bool is_given, bool has_stage) {
    if (!is_given) return;
    if (spec.stages_size() > 0) {
      out.Add(field, "stands beside stages; move it into an item of stages or delete it");
    } else if (spec.has_recipe() && !has_stage) {
      out.AddUnless(
          {"recipe"}, field,
          "stands beside recipe " + Quoted(spec.recipe()) + ", which has no such stage; delete it");
    }
  };
  const RecipeShape shape = ShapeOf(spec.recipe());
  check("attention_transfer", spec.has_attention_transfer(), shape.has_transfer);
  check("finetune", spec.has_finetune(), shape.has_finetune);
}

void CheckDuplicates(const v1::DataSpec& data, ViolationList& out) {
  std::map<std::string, std::string> seen;
  const auto check = [&](const std::string& field, const auto& files) {
    for (int i = 0; i < files.size(); ++i) {
      const auto [first, is_new] = seen.emplace(files[i], ItemPath(field, i));
      if (is_new) continue;
      out.AddUnless(
          {first->second}, ItemPath(field, i),
          "is " + Quoted(files[i]) + ", the same file as " + first->second + "; keep one");
    }
  };
  check("data.train", data.train());
  check("data.validation", data.validation());
}

void CheckSuffixes(const std::string& field,
                   const google::protobuf::RepeatedPtrField<std::string>& files,
                   ViolationList& out) {
  for (int i = 0; i < files.size(); ++i) {
    std::string name = WithoutRows(files[i]);
    // A folder of save_to_disk has a name without an ending.
    if (name.find('.', name.rfind('/') + 1) == std::string::npos) continue;
    const auto ends = [&name](const char* ending) { return name.ends_with(ending); };
    if (ends(".parquet") || ends(".arrow") || ends(".bin")) continue;
    for (const char* packed : {".gz", ".xz", ".zst"}) {
      if (name.ends_with(packed)) name.resize(name.size() - std::string(packed).size());
    }
    if (name.ends_with(".txt") || name.ends_with(".jsonl")) continue;
    out.AddUnless(
        {}, ItemPath(field, i),
        "is " + Quoted(files[i]) +
            "; must end in .txt or .jsonl, one of these with .gz, .xz or .zst, or in .parquet, "
            ".arrow or .bin");
  }
}

void CheckWindow(const v1::JobSpec& spec, ViolationList& out) {
  const int64_t length = spec.data().sequence_length();
  const auto& window = spec.attention().window();
  const std::string limit = "data.sequence_length, which is " + std::to_string(length);
  const bool is_terraced = window.kind() == "terraced";
  if (is_terraced && window.size() < length && 2 * window.size() >= length) {
    out.AddUnless({"data.sequence_length"}, "attention.window.size",
                  "is " + std::to_string(window.size()) + "; a terraced window holds up to twice " +
                      "as many tokens, which must be fewer than " + limit);
  } else if (window.size() >= length) {
    out.AddUnless({"data.sequence_length"}, "attention.window.size",
                  "is " + std::to_string(window.size()) + "; must be below " + limit +
                      ": with the whole sequence in the window, linear attention is never used");
  } else if (window.sinks() >= length - window.size()) {
    out.AddUnless({"data.sequence_length", "attention.window.size"}, "attention.window.sinks",
                  "is " + std::to_string(window.sinks()) +
                      "; with attention.window.size it must stay below " + limit);
  }
}

// Blocks from the end, and the defect that comes of them, belong to terraced windows.
void CheckParity(const v1::AttentionSpec& attention, ViolationList& out) {
  const bool is_terraced = attention.window().kind() == "terraced";
  if (attention.window().align_end() && !is_terraced) {
    out.AddUnless({"attention.window.kind"}, "attention.window.align_end",
                  "is true, and a sliding window has no blocks; choose attention.window.kind "
                  "terraced");
  }
  const bool has_defect = is_terraced && attention.linear().span() == "outside" &&
                          attention.mixing().kind() == "shared" && attention.cache().size() == 0;
  if (attention.compat() == "lolcats" && !has_defect) {
    out.AddUnless({"attention.window.kind", "attention.linear.span"}, "attention.compat",
                  "is \"lolcats\", which that code has with attention.window.kind terraced, "
                  "attention.linear.span outside, attention.mixing.kind shared and no "
                  "attention.cache alone; choose these, or compat none");
  }
}

void CheckMixing(const v1::JobSpec& spec, ViolationList& out) {
  const auto& mixing = spec.attention().mixing();
  const bool for_use_alone = spec.recipe() == "inference_hybrid" || spec.recipe() == "diagnose";
  if (mixing.kind() == "mass" && !for_use_alone) {
    out.AddUnless({"recipe"}, "attention.mixing.kind",
                  "is \"mass\", which cannot be trained; choose recipe inference_hybrid or "
                  "diagnose, or kind shared");
  }
  const bool is_plain = spec.attention().linear().span() == "outside" && !mixing.affine() &&
                        mixing.window_gain() == 1;
  if (mixing.kind() == "mass" && for_use_alone && !is_plain) {
    out.AddUnless({}, "attention.mixing.kind",
                  "is \"mass\"; it has no window factor: leave attention.linear.span, "
                  "attention.mixing.affine and attention.mixing.window_gain at their defaults");
  }
  const bool can_cache = spec.attention().linear().span() == "outside" && mixing.kind() == "shared";
  if (spec.attention().cache().size() > 0 && !can_cache) {
    out.AddUnless({}, "attention.cache.size",
                  "is " + std::to_string(spec.attention().cache().size()) +
                      "; a sparse cache needs attention.linear.span outside and "
                      "attention.mixing.kind shared");
  }
  if (mixing.affine() && mixing.factor() != "sigmoid") {
    out.AddUnless({"attention.mixing.factor"}, "attention.mixing.affine",
                  "is true; the window factor must be below 1: choose attention.mixing.factor "
                  "sigmoid");
  }
  if (mixing.factor() == "sigmoid" && mixing.initial() >= 1) {
    out.AddUnless({}, "attention.mixing.initial",
                  "is " + NumberText(mixing.initial()) +
                      "; must be below 1 with attention.mixing.factor sigmoid");
  }
}

void CheckRetain(const v1::RetainSpec& retain, ViolationList& out) {
  std::set<std::string> seen;
  for (int i = 0; i < retain.kv_groups_size(); ++i) {
    const std::string& text = retain.kv_groups(i);
    const std::string item = ItemPath("attention.retain.kv_groups", i);
    if (!ReadRetainedText(text)) {
      out.AddUnless({}, item,
                    "is " + Quoted(text) +
                        "; must be \"LAYER.GROUP\", such as \"5.2\", or \"LAYER\" for all of a "
                        "layer, counted from 0");
    } else if (!seen.insert(text).second) {
      out.AddUnless({}, item, "is " + Quoted(text) + " a second time; keep one");
    }
  }
  if (retain.auto_() > 0 && retain.kv_groups_size() > 0) {
    out.AddUnless({}, "attention.retain.auto",
                  "stands beside attention.retain.kv_groups; keep one of the two");
  }
}

}  // namespace

void CheckPresence(const v1::JobSpec& spec, ViolationList& out) {
  CheckRequired(spec, out);
  if (spec.has_recipe() && spec.stages_size() > 0 && !IsResolved(spec)) {
    out.Add("stages", "stands beside recipe; keep one of the two");
  }
  for (int i = 0; i < spec.stages_size(); ++i) {
    if (spec.stages(i).kind_case() != v1::StageSpec::KIND_NOT_SET) continue;
    out.Add(ItemPath("stages", i),
            "names no stage; write `attention_transfer: {}` or `finetune: {}`");
  }
  CheckOverrides(spec, out);
}

void CheckDataFiles(const v1::DataSpec& data, ViolationList& out) {
  CheckDuplicates(data, out);
  CheckSuffixes("data.train", data.train(), out);
  CheckSuffixes("data.validation", data.validation(), out);
  if (data.weights_size() > 0 && data.weights_size() != data.train_size()) {
    out.AddUnless({"data.train"}, "data.weights",
                  "has " + std::to_string(data.weights_size()) +
                      " items; must have one per item of data.train, which has " +
                      std::to_string(data.train_size()));
  }
}

void CheckAttention(const v1::JobSpec& resolved, ViolationList& out) {
  CheckWindow(resolved, out);
  CheckParity(resolved.attention(), out);
  CheckMixing(resolved, out);
  CheckRetain(resolved.attention().retain(), out);
}

void CheckDevice(const v1::JobSpec& resolved, ViolationList& out) {
  if (resolved.model().dtype() != "bfloat16" || resolved.parallelism().device() == "cuda") return;
  out.AddUnless({"parallelism.device"}, "model.dtype",
                "is \"bfloat16\", which needs parallelism.device cuda; with cpu choose float32");
}

}  // namespace tandem
