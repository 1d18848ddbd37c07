#include "cli/comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cli/spec_differences.h"

namespace tandem::cli {
namespace {

using nlohmann::json;

constexpr double kSameLoss = 1e-4;  // base losses that differ by more are other bases or other text
const std::vector<std::string> kReportKeys = {
    "verdict",        "verdict_reason", "linear_capability", "beyond_window", "components",
    "beats_window",   "recall",         "passkey",           "long_range",    "suites",
    "suites_average", "lengths",        "early_stop",        "retained",      "cost"};

std::string Text(const json& value, const std::string& otherwise) {
  return value.is_string() ? value.get<std::string>() : otherwise;
}

// Reports from before the recipes had modes of their own do not say it.
std::string ServedModeOf(const ComparedJob& job) {
  const std::string recipe = Text(At(job.report, {"recipe"}), Text(At(job.spec, {"recipe"}), ""));
  const std::string usual = recipe == "linear"           ? "linear_only"
                            : recipe == "window_control" ? "window_only"
                                                         : "hybrid";
  return Text(At(job.report, {"served_mode"}), usual);
}

json JobJson(const ComparedJob& job) {
  json row = {
      {"name", job.name},
      {"uid", job.uid},
      {"page", job.page},
      {"recipe", Text(At(job.report, {"recipe"}), Text(At(job.spec, {"recipe"}), "stages"))},
      {"served_mode", ServedModeOf(job)}};
  for (const auto& key : kReportKeys) row[key] = At(job.report, {key});
  return row;
}

// Losses by sequence of the mode that is served; empty where the report has none.
std::vector<double> ServedLosses(const ComparedJob& job) {
  const std::string mode = ServedModeOf(job);
  std::vector<double> losses;
  for (const auto& loss : At(job.report, {"per_sequence", mode})) {
    if (!loss.is_number()) return {};
    losses.push_back(loss.get<double>());
  }
  return losses;
}

// What each sequence counts: its targets, or all alike in a report that does not tell them.
std::vector<double> TargetsOf(const ComparedJob& job, size_t sequences) {
  std::vector<double> targets;
  for (const auto& count : At(job.report, {"targets_per_sequence"})) {
    if (count.is_number()) targets.push_back(count.get<double>());
  }
  return targets.size() == sequences ? targets : std::vector<double>(sequences, 1);
}

double TokenMean(const std::vector<double>& values, const std::vector<double>& targets) {
  const double sum = std::inner_product(values.begin(), values.end(), targets.begin(), 0.0);
  return sum / std::accumulate(targets.begin(), targets.end(), 0.0);
}

// The interval is that of worker/evaluate/token_mean.h: sequences are what is drawn.
json PairedRow(const std::string& name, const std::vector<double>& losses,
               const std::vector<double>& best, const std::vector<double>& targets) {
  std::vector<double> differences;
  for (size_t i = 0; i < losses.size(); ++i) differences.push_back(losses[i] - best[i]);
  const double mean = TokenMean(differences, targets);
  double squares = 0, tokens = 0;
  for (size_t i = 0; i < differences.size(); ++i) {
    squares += std::pow(targets[i] * (differences[i] - mean), 2);
    tokens += targets[i];
  }
  const auto n = static_cast<double>(differences.size());
  const double half = 1.96 * std::sqrt(squares * n / (n - 1)) / tokens;
  return {{"name", name}, {"difference", mean}, {"low", mean - half}, {"high", mean + half}};
}

json Paired(const std::vector<ComparedJob>& jobs) {
  std::vector<std::vector<double>> losses;
  for (const auto& job : jobs) {
    losses.push_back(ServedLosses(job));
    const bool same_text =
        At(job.report, {"validation_sha256"}) == At(jobs.front().report, {"validation_sha256"});
    if (losses.back().size() < 2 || losses.back().size() != losses.front().size() || !same_text)
      return nullptr;
  }
  if (jobs.size() < 2) return nullptr;
  const std::vector<double> targets = TargetsOf(jobs.front(), losses.front().size());
  size_t best = 0;
  for (size_t i = 1; i < jobs.size(); ++i) {
    if (TokenMean(losses[i], targets) < TokenMean(losses[best], targets)) best = i;
  }
  json rows = json::array();
  for (size_t i = 0; i < jobs.size(); ++i)
    rows.push_back(PairedRow(jobs[i].name, losses[i], losses[best], targets));
  return {{"best", jobs[best].name}, {"sequences", losses[best].size()}, {"rows", rows}};
}

json Notes(const std::vector<ComparedJob>& jobs) {
  json notes = json::array();
  std::vector<double> bases;
  for (const auto& job : jobs) {
    const auto& loss = At(job.report, {"components", "softmax", "loss"});
    if (loss.is_number()) bases.push_back(loss.get<double>());
    if (!job.spec.is_object())
      notes.push_back("the spec of " + job.name + " is not known: its differences are not listed");
  }
  const auto [low, high] = std::ranges::minmax_element(bases);
  if (!bases.empty() && *high - *low > kSameLoss) {
    notes.push_back(
        "the jobs have other base models or other held-out text (their bases' losses differ): "
        "compare what is recovered, not losses");
  }
  return notes;
}

void AddColumn(const json& row, const std::string& kind, std::vector<RecallColumn>& columns) {
  for (const char* measure : {"distance", "facts", "pairs"}) {
    const auto& value = At(row, {measure});
    if (!value.is_number_integer()) continue;
    const RecallColumn column{kind, measure, value.get<int64_t>()};
    const bool known = std::ranges::any_of(
        columns, [&](const RecallColumn& other) { return other.Title() == column.Title(); });
    if (!known) columns.push_back(column);
    return;
  }
}

}  // namespace

const json& At(const json& object, const std::vector<std::string>& keys) {
  static const json kNull;
  const json* at = &object;
  for (const auto& key : keys) {
    if (!at->is_object()) return kNull;
    const auto found = at->find(key);
    if (found == at->end()) return kNull;
    at = &*found;
  }
  return *at;
}

json ComparisonJson(const std::vector<ComparedJob>& jobs) {
  json rows = json::array();
  for (const auto& job : jobs) rows.push_back(JobJson(job));
  return {{"version", 1},
          {"jobs", rows},
          {"differences", SpecDifferences(jobs)},
          {"paired", Paired(jobs)},
          {"notes", Notes(jobs)}};
}

std::string RecallColumn::Title() const {
  return kind + (measure == "distance" ? "@" : ":") + std::to_string(value);
}

std::vector<RecallColumn> RecallColumns(const json& comparison) {
  std::vector<RecallColumn> columns;
  for (const auto& job : comparison["jobs"]) {
    for (const auto& row : At(job, {"passkey"})) AddColumn(row, "passkey", columns);
    for (const auto& row : At(job, {"long_range"}))
      AddColumn(row, Text(At(row, {"kind"}), "recall"), columns);
  }
  return columns;
}

json RecallFigure(const json& job, const RecallColumn& column, const std::string& mode) {
  if (column.kind == "passkey") {
    for (const auto& row : At(job, {"passkey"})) {
      if (At(row, {"distance"}) == column.value) return At(row, {"accuracy", mode});
    }
  }
  for (const auto& row : At(job, {"long_range"})) {
    if (At(row, {"kind"}) == column.kind && At(row, {column.measure}) == column.value)
      return At(row, {"accuracy", mode});
  }
  return nullptr;
}

std::vector<std::string> SuiteNames(const json& comparison) {
  std::vector<std::string> names;
  for (const auto& job : comparison["jobs"]) {
    for (const auto& suite : At(job, {"suites"})) {
      const std::string name = Text(At(suite, {"name"}), "");
      if (!name.empty() && std::ranges::find(names, name) == names.end()) names.push_back(name);
    }
  }
  return names;
}

json SuiteFigure(const json& job, const std::string& suite, const std::string& mode) {
  for (const auto& row : At(job, {"suites"})) {
    if (At(row, {"name"}) == suite) return At(row, {"scores", mode, "value"});
  }
  return nullptr;
}

}  // namespace tandem::cli
