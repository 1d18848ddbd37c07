#include "worker/rank/stage_state.h"

namespace tandem {
namespace {

template <typename Keep>
NamedTensors Filtered(const NamedTensors& state, const Keep& keep) {
  NamedTensors kept;
  for (const auto& [name, tensor] : state) {
    if (keep(name)) kept[name] = tensor;
  }
  return kept;
}

bool IsMoment(const std::string& name) {
  return name.starts_with("adam.");
}

}  // namespace

NamedTensors StateOf(const TrainingStage& stage, const EarlyStop* stop) {
  NamedTensors state = stage.State();
  if (stop != nullptr) state.merge(stop->State());
  return state;
}

NamedTensors ParametersOf(const NamedTensors& state) {
  return Filtered(
      state, [](const std::string& name) { return !IsMoment(name) && !name.starts_with("stop."); });
}

NamedTensors ResultOf(const StagePlan& stage, const NamedTensors& state) {
  const bool with_lora = stage.kind == "finetune";
  return Filtered(state, [&](const std::string& name) {
    return !IsMoment(name) && (with_lora || name.find(".lora_") == std::string::npos);
  });
}

}  // namespace tandem
