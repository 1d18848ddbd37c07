// report.json: the evaluation for the agent, the HTML report and the export.
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "worker/evaluate/evaluate.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

ordered_json Number(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}
ordered_json Number(const std::optional<double>& value) {
  return value ? Number(*value) : ordered_json(nullptr);
}

ordered_json Components(const Evaluation& evaluation) {
  ordered_json components = ordered_json::object();
  for (const char* mode :
       {"softmax", "hybrid", "window_only", "linear_only", "sinks_only", "none"}) {
    const ComponentFigures& figures = evaluation.components.at(mode);
    components[mode] = {{"loss", Number(figures.loss)},
                        {"perplexity", Number(figures.perplexity)},
                        {"standard_error", Number(figures.standard_error)},
                        {"recovered", Number(evaluation.verdict.recovered.at(mode))}};
  }
  return components;
}

ordered_json Passkey(const Evaluation& evaluation) {
  ordered_json rows = ordered_json::array();
  for (const PasskeyFigures& figures : evaluation.passkey) {
    ordered_json accuracy = ordered_json::object();
    for (const auto& [mode, value] : figures.accuracy) accuracy[mode] = Number(value);
    rows.push_back({{"distance", figures.distance},
                    {"prompts", figures.prompts},
                    {"accuracy", std::move(accuracy)}});
  }
  return rows;
}

ordered_json LinearMass(const Evaluation& evaluation) {
  ordered_json layers = ordered_json::array();
  for (const auto& heads : evaluation.linear_mass) {
    ordered_json row = ordered_json::array();
    for (const double share : heads) row.push_back(Number(share));
    layers.push_back(std::move(row));
  }
  return layers;
}

}  // namespace

std::string EvaluationToJson(const Plan& plan, const Evaluation& evaluation) {
  const Verdict& verdict = evaluation.verdict;
  ordered_json root = {{"version", 1},
                       {"job", plan.job_name},
                       {"uid", plan.job_uid},
                       {"verdict", verdict.verdict},
                       {"verdict_reason", verdict.reason},
                       {"linear_capability", Number(verdict.linear_capability)},
                       {"beyond_window", Number(verdict.beyond_window)},
                       {"state_swap_delta", Number(verdict.state_swap_delta)},
                       {"linear_delta", Number(verdict.linear_delta)},
                       {"linear_delta_low", Number(evaluation.linear_delta_low)},
                       {"linear_delta_high", Number(evaluation.linear_delta_high)}};
  root["components"] = Components(evaluation);
  root["passkey"] = Passkey(evaluation);
  root["sequences"] = evaluation.sequences;
  root["sequence_length"] = evaluation.sequence_length;
  root["linear_mass"] = LinearMass(evaluation);
  root["linear_active"] = Number(evaluation.linear_active);
  root["thresholds"] = {{"collapsed_below", kVerdictThresholds.collapsed_below},
                        {"leaning_below", kVerdictThresholds.leaning_below},
                        {"window_leaning_below", kVerdictThresholds.window_leaning_below},
                        {"content_free_below", kVerdictThresholds.content_free_below}};
  root["seconds"] = evaluation.seconds;
  return root.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

Result<std::string> WriteEvaluation(const Plan& plan, const Evaluation& evaluation) {
  const std::string folder = JoinPath(plan.job_folder, "artifacts");
  TANDEM_RETURN_IF_ERROR(MakeFolders(folder));
  const std::string path = JoinPath(folder, "report.json");
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(path, EvaluationToJson(plan, evaluation)));
  return path;
}

}  // namespace tandem
