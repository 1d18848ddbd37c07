#include "worker/rank/metrics_history.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/files.h"
#include "worker/data/json_file.h"
#include "worker/plan/attempt_folders.h"

namespace tandem {
namespace {

// An end of more than this times the start is no noise: measured divergences were threefold
// (method.md §3), a stage that only learns ends below its start.
constexpr double kDivergedRatio = 1.5;
constexpr size_t kAveragedSteps = 20;

void AddLines(const std::string& text, MetricsHistory& history) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) return;  // not whole
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    const int64_t stage_index = IntegerOf(json, "stage_index"), step = IntegerOf(json, "step");
    if (stage_index >= 0 && step >= 0) history[{stage_index, step}] = line;
  }
}

double Mean(const std::vector<double>& values, size_t begin, size_t count) {
  double sum = 0;
  for (size_t i = begin; i < begin + count; ++i) sum += values[i];
  return sum / static_cast<double>(count);
}

}  // namespace

Result<MetricsHistory> ReadMetricsHistory(const std::string& job_folder, int64_t epoch) {
  MetricsHistory history;
  for (const int64_t attempt : AttemptEpochs(job_folder)) {
    const std::string path = MetricsPath(job_folder, attempt);
    if (attempt > epoch || !PathExists(path)) continue;
    TANDEM_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    AddLines(text, history);
  }
  return history;
}

std::string LinesOfStage(const MetricsHistory& history, int64_t stage_index) {
  std::string lines;
  for (const auto& [place, line] : history) {
    if (place.first == stage_index) lines += line + "\n";
  }
  return lines;
}

std::string MarkedAsReused(const std::string& lines) {
  std::string marked;
  for (const char c : lines) {
    if (c == '\n' && marked.ends_with('}')) {
      marked.pop_back();
      marked += ",\"reused\":true}";
    }
    marked += c;
  }
  return marked;
}

std::string DivergenceWords(const MetricsHistory& history, int64_t stage_index) {
  std::vector<double> losses;
  std::string stage;
  const auto end = history.lower_bound({stage_index + 1, 0});
  for (auto place = history.lower_bound({stage_index, 0}); place != end; ++place) {
    const auto json = nlohmann::json::parse(place->second, nullptr, false);
    const double loss = RealOf(json, "loss", NAN);
    if (std::isnan(loss)) continue;
    losses.push_back(loss);
    stage = TextOf(json, "stage");
  }
  const size_t count = std::min(kAveragedSteps, losses.size() / 4);
  if (count == 0) return "";
  const double first = Mean(losses, 0, count);
  const double last = Mean(losses, losses.size() - count, count);
  if (last <= kDivergedRatio * first) return "";
  char text[200];
  std::snprintf(text, sizeof text,
                "stage %lld (%s) diverged: its loss rose from %.3f to %.3f; lower %s.learning_rate",
                static_cast<long long>(stage_index), stage.c_str(), first, last, stage.c_str());
  return text;
}

std::string TransferDivergence(const MetricsHistory& history, int64_t stage_index) {
  const auto end = history.lower_bound({stage_index + 1, 0});
  if (end == history.begin() || std::prev(end)->first.first != stage_index) return "";
  const auto line = nlohmann::json::parse(std::prev(end)->second, nullptr, false);
  const auto& told = ListOf(line, "divergences");
  std::vector<double> layers;
  for (const auto& value : told) layers.push_back(value.is_number() ? value.get<double>() : NAN);
  if (layers.empty()) return "";
  const auto worst = std::max_element(layers.begin(), layers.end());
  return nlohmann::ordered_json{{"stage_index", stage_index},
                                {"layers", told},
                                {"mean", Mean(layers, 0, layers.size())},
                                {"worst_layer", worst - layers.begin()}}
      .dump();
}

}  // namespace tandem
