#include "worker/evaluate/cost_json.h"

#include <cmath>

namespace tandem {

using nlohmann::ordered_json;

ordered_json Number(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}
ordered_json Number(const std::optional<double>& value) {
  return value ? Number(*value) : ordered_json(nullptr);
}

ordered_json StageCostJson(const StageCost& stage) {
  ordered_json out = {{"stage", stage.stage},
                      {"stage_index", stage.stage_index},
                      {"tokens", Number(stage.tokens)},
                      {"seconds", Number(stage.seconds)}};
  if (stage.steps > 0) out["steps"] = stage.steps;
  if (stage.peak_memory_bytes > 0) out["peak_memory_bytes"] = Number(stage.peak_memory_bytes);
  if (stage.reused) out["reused"] = true;
  if (!stage.estimate) return out;
  const StageEstimate& expected = *stage.estimate;
  if (expected.flop_per_second > 0) {
    out["flop_per_token"] = Number(expected.flop_per_token);
    if (stage.seconds > 0) {
      out["flop_per_second"] = Number(expected.flop_per_token * stage.tokens / stage.seconds);
    }
  }
  out["estimate"] = {{"tokens", Number(expected.tokens)},
                     {"seconds", Number(expected.seconds())},
                     {"memory_bytes", Number(expected.memory_bytes)}};
  // Of what was done: training that stopped early is compared with as many tokens of the plan.
  const double share = stage.steps > 0 ? stage.tokens / expected.tokens : 1;
  out["error"] = {
      {"seconds", Number(RelativeError(stage.seconds, expected.seconds() * share))},
      {"memory_bytes", Number(RelativeError(stage.peak_memory_bytes, expected.memory_bytes))}};
  return out;
}

}  // namespace tandem
