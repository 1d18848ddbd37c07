#include "spec/recipes.h"

namespace tandem {
namespace {

// Digits alone, few enough for any model.
std::optional<int64_t> ReadIndex(const std::string& text) {
  const bool digits = text.find_first_not_of("0123456789") == std::string::npos;
  if (text.empty() || text.size() > 6 || !digits) return std::nullopt;
  return std::stoll(text);
}

}  // namespace

RecipeShape ShapeOf(const std::string& recipe) {
  if (recipe == "window_control") return {.has_transfer = false};
  if (recipe == "diagnose") return {.has_transfer = false, .has_finetune = false};
  return {};
}

std::string ServedMode(const v1::JobSpec& resolved) {
  std::string mode = "hybrid";
  if (resolved.recipe() == "inference_hybrid") return mode;
  for (const auto& stage : resolved.stages()) {
    if (stage.has_finetune()) mode = stage.finetune().mode();
  }
  return mode;
}

std::optional<RetainedText> ReadRetainedText(const std::string& text) {
  const size_t dot = text.find('.');
  const auto layer = ReadIndex(text.substr(0, dot));
  if (!layer) return std::nullopt;
  if (dot == std::string::npos) return RetainedText{*layer, std::nullopt};
  const auto group = ReadIndex(text.substr(dot + 1));
  if (!group) return std::nullopt;
  return RetainedText{*layer, group};
}

}  // namespace tandem
