// report.json: the evaluation for the agent, the HTML report, comparisons and the export. Its keys
// are described in README.md beside this file.
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "worker/evaluate/cost_json.h"
#include "worker/evaluate/evaluate.h"

namespace tandem {
namespace {

using nlohmann::ordered_json;

// More sequences than this are not listed one by one: the report stays below the coordinator's
// limit.
constexpr size_t kMaxListedSequences = 20'000;

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

ordered_json ByMode(const std::map<std::string, double>& values) {
  ordered_json out = ordered_json::object();
  for (const auto& [mode, value] : values) out[mode] = Number(value);
  return out;
}

ordered_json Passkey(const Evaluation& evaluation) {
  ordered_json rows = ordered_json::array();
  for (const LongRangeRow& row : evaluation.long_range.rows) {
    if (row.kind != "passkey") continue;
    rows.push_back(
        {{"distance", row.amount}, {"prompts", row.prompts}, {"accuracy", ByMode(row.accuracy)}});
  }
  return rows;
}

ordered_json LongRange(const Evaluation& evaluation) {
  ordered_json rows = ordered_json::array();
  for (const LongRangeRow& row : evaluation.long_range.rows) {
    const char* amount = row.kind == "recall"      ? "facts"
                         : row.kind == "key_value" ? "pairs"
                                                   : "distance";
    rows.push_back({{"kind", row.kind},
                    {amount, row.amount},
                    {"length", row.length},
                    {"prompts", row.prompts},
                    {"answers", row.answers},
                    {"accuracy", ByMode(row.accuracy)}});
  }
  return rows;
}

ordered_json Suites(const Evaluation& evaluation) {
  ordered_json suites = ordered_json::array();
  for (const SuiteFigures& suite : evaluation.suites) {
    ordered_json scores = ordered_json::object();
    for (const auto& [mode, score] : suite.scores) {
      scores[mode] = {{"value", Number(score.value)},
                      {"standard_error", Number(score.standard_error)}};
      for (const NamedValue& also : score.also) scores[mode][also.name] = Number(also.value);
    }
    suites.push_back({{"name", suite.name},
                      {"metric", suite.metric},
                      {"items", suite.items},
                      {"linear_active", Number(suite.linear_active)},
                      {"scores", std::move(scores)}});
  }
  return suites;
}

void AddSuites(const Evaluation& evaluation, ordered_json* root) {
  if (evaluation.suites.empty()) return;
  (*root)["suites"] = Suites(evaluation);
  (*root)["suites_bos"] = evaluation.bos;
  const std::map<std::string, double> all = SuitesAverage(evaluation.suites, false);
  const std::map<std::string, double> without = SuitesAverage(evaluation.suites, true);
  if (!all.empty()) (*root)["suites_average"] = ByMode(all);
  if (!without.empty() && without != all) {
    (*root)["suites_average_without_mmlu"] = ByMode(without);
  }
}

ordered_json Control(const std::optional<ControlComparison>& control) {
  if (!control) return nullptr;
  return {{"loss", Number(control->loss)},
          {"delta", Number(control->delta)},
          {"low", Number(control->low)},
          {"high", Number(control->high)}};
}

ordered_json BeatsWindowJson(const BeatsWindow& beats) {
  return {{"value", beats.value ? ordered_json(*beats.value) : ordered_json(nullptr)},
          {"training_free", Control(beats.training_free)},
          {"trained", Control(beats.trained)},
          {"margin", beats.margin},
          {"words", beats.words}};
}

ordered_json Lengths(const Evaluation& evaluation) {
  ordered_json rows = ordered_json::array();
  for (const LengthFigures& figures : evaluation.lengths) {
    ordered_json components = ordered_json::object();
    for (const auto& [mode, loss] : figures.losses) components[mode] = {{"loss", Number(loss)}};
    rows.push_back({{"length", figures.length},
                    {"sequences", figures.sequences},
                    {"components", std::move(components)}});
  }
  return rows;
}

ordered_json CostJson(const Evaluation& evaluation) {
  const Cost& cost = evaluation.cost;
  ordered_json stages = ordered_json::array();
  for (const StageCost& stage : cost.stages) stages.push_back(StageCostJson(stage));
  ordered_json out = {{"tokens", Number(cost.tokens)},
                      {"seconds", Number(cost.seconds)},
                      {"repeated_seconds", Number(cost.repeated_seconds)},
                      {"peak_memory_bytes", Number(cost.peak_memory_bytes)},
                      {"stages", std::move(stages)}};
  if (evaluation.device_bytes > 0) out["peak_device_bytes"] = Number(evaluation.device_bytes);
  return out;
}

ordered_json PerSequence(const Evaluation& evaluation) {
  ordered_json modes = ordered_json::object();
  for (const auto& [mode, losses] : evaluation.losses.per_sequence) {
    if (losses.size() > kMaxListedSequences) return ordered_json::object();
    ordered_json& values = modes[mode] = ordered_json::array();
    // A millionth of a nat is far below what decides, and halves the text.
    for (const double loss : losses) values.push_back(Number(std::round(loss * 1e6) / 1e6));
  }
  return modes;
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

ordered_json Retained(const Plan& plan) {
  ordered_json groups = ordered_json::array();
  for (const RetainedGroup& group : plan.attention.retained) {
    groups.push_back(ordered_json::array({group.layer, group.group}));
  }
  return groups;
}

}  // namespace

std::string EvaluationToJson(const Plan& plan, const Evaluation& evaluation) {
  const Verdict& verdict = evaluation.verdict;
  ordered_json root = {{"version", 1},
                       {"job", plan.job_name},
                       {"uid", plan.job_uid},
                       {"recipe", plan.recipe},
                       {"served_mode", plan.served_mode},
                       {"verdict", verdict.verdict},
                       {"verdict_reason", verdict.reason},
                       {"linear_capability", Number(verdict.linear_capability)},
                       {"beyond_window", Number(verdict.beyond_window)},
                       {"state_swap_delta", Number(verdict.state_swap_delta)},
                       {"linear_delta", Number(verdict.linear_delta)},
                       {"linear_delta_low", Number(evaluation.linear_delta_low)},
                       {"linear_delta_high", Number(evaluation.linear_delta_high)}};
  root["components"] = Components(evaluation);
  root["beats_window"] = BeatsWindowJson(evaluation.beats_window);
  root["recall"] = {{"value", Number(evaluation.long_range.recall.value)},
                    {"words", evaluation.long_range.recall.words}};
  root["passkey"] = Passkey(evaluation);
  root["long_range"] = LongRange(evaluation);
  AddSuites(evaluation, &root);
  if (!evaluation.lengths.empty()) root["lengths"] = Lengths(evaluation);
  root["sequences"] = evaluation.sequences;
  root["sequence_length"] = evaluation.sequence_length;
  root["linear_mass"] = LinearMass(evaluation);
  root["linear_active"] = Number(evaluation.linear_active);
  root["retained"] = Retained(plan);
  root["thresholds"] = {{"collapsed_below", kVerdictThresholds.collapsed_below},
                        {"leaning_below", kVerdictThresholds.leaning_below},
                        {"window_leaning_below", kVerdictThresholds.window_leaning_below},
                        {"content_free_below", kVerdictThresholds.content_free_below},
                        {"least_linear_delta", kVerdictThresholds.least_linear_delta}};
  for (const auto& [key, text] : evaluation.notes) {
    root[key] = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (root[key].is_discarded()) root[key] = nullptr;
  }
  root["cost"] = CostJson(evaluation);
  root["validation_sha256"] = evaluation.losses.validation_sha256;
  root["per_sequence"] = PerSequence(evaluation);
  if (!root["per_sequence"].empty()) root["targets_per_sequence"] = evaluation.losses.targets;
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
