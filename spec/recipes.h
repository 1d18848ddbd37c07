// Recipes: which stages a recipe's name stands for, and the mode its model is served in (method.md
// §6.5). Defaults that differ by recipe stand in the table of fields.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tandem/v1/spec.pb.h"

namespace tandem {

struct RecipeShape {
  bool has_transfer = true;
  bool has_finetune = true;
};

// "": stages are written out. Unknown names have the usual shape: another rule refuses them.
RecipeShape ShapeOf(const std::string& recipe);

// The mode that the converted model is used in: the last finetune stage's, except that
// inference_hybrid gets its window back. For diagnose the converted model says it.
std::string ServedMode(const v1::JobSpec& resolved);

// An item of attention.retain.kv_groups.
struct RetainedText {
  int64_t layer = 0;
  std::optional<int64_t> group;  // none: all groups of the layer
};

// "5.2" or "5"; nothing for other texts.
std::optional<RetainedText> ReadRetainedText(const std::string& text);

}  // namespace tandem
