#include "cli/comparison_text.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cli/align.h"
#include "cli/comparison.h"

namespace tandem::cli {
namespace {

using nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

constexpr int kWideFrom = 80;
constexpr size_t kLongestName = 18;
constexpr size_t kLongestValue = 60;
const std::vector<std::string> kBranches = {"hybrid", "window_only", "linear_only"};

std::string Cut(const std::string& text, size_t most) {
  return text.size() <= most ? text : text.substr(0, most - 2) + "..";
}

std::string Name(const json& job) {
  return Cut(job["name"].get<std::string>(), kLongestName);
}

double Number(const json& value) {
  return value.is_number() ? value.get<double>() : std::nan("");
}

std::string Percent(const json& share) {
  return share.is_number() ? Fixed(100 * share.get<double>(), 0) : "-";
}

std::string Verdict(const json& job) {
  if (job["recipe"] == "window_control") return "control";  // it has no linear branch to judge
  return job["verdict"].is_string() ? job["verdict"].get<std::string>() : "-";
}

std::string BeatsWindow(const json& job) {
  const auto& value = At(job, {"beats_window", "value"});
  return value.is_boolean() ? (value.get<bool>() ? "yes" : "no") : "-";
}

std::string Time(const json& job) {
  const auto& seconds = At(job, {"cost", "seconds"});
  return seconds.is_number() ? Duration(seconds.get<double>()) : "-";
}

std::string Memory(const json& job) {
  const auto& bytes = At(job, {"cost", "peak_memory_bytes"});
  if (!bytes.is_number()) return "-";
  return Fixed(bytes.get<double>() / 1e9, 1) + " GB";
}

bool Any(const json& comparison, const std::vector<std::string>& keys) {
  return std::ranges::any_of(comparison["jobs"],
                             [&](const json& job) { return !At(job, keys).is_null(); });
}

// The base's loss, where all jobs have the same.
double BaseLoss(const json& comparison) {
  double loss = std::nan("");
  for (const auto& job : comparison["jobs"]) {
    const double own = Number(At(job, {"components", "softmax", "loss"}));
    if (std::isnan(own) || (!std::isnan(loss) && std::abs(own - loss) > 1e-4)) return std::nan("");
    loss = own;
  }
  return loss;
}

// "3.0434*" where the mode is what is served, "3.0831 " otherwise.
std::string Loss(const json& job, const std::string& mode) {
  return Fixed(Number(At(job, {"components", mode, "loss"})), 4) +
         (job["served_mode"] == mode ? "*" : " ");
}

std::vector<std::string> BaseRow(const json& comparison, double loss, bool suites) {
  std::vector<std::string> cells = {"the base", "-", Fixed(loss, 4), "100"};
  if (!suites) return cells;
  cells.resize(8);
  const double average = Number(At(comparison["jobs"][0], {"suites_average", "softmax"}));
  cells.push_back(Right(Fixed(100 * average, 1), 6));
  return cells;
}

Rows WideRows(const json& comparison) {
  const bool suites = Any(comparison, {"suites_average"});
  const bool recall = Any(comparison, {"recall", "value"});
  const bool beats = Any(comparison, {"beats_window"});
  Rows rows = {{"RUN", "VERDICT", " HYBRID", "  %", " WINDOW", "  %", " LINEAR", "  %"}};
  if (suites) rows[0].push_back("SUITES");
  if (beats) rows[0].push_back("BEATS");
  if (recall) rows[0].push_back("RECALL");
  if (const double base = BaseLoss(comparison); std::isfinite(base))
    rows.push_back(BaseRow(comparison, base, suites));
  for (const auto& job : comparison["jobs"]) {
    std::vector<std::string> cells = {Name(job), Verdict(job)};
    for (const auto& mode : kBranches) {
      cells.push_back(Right(Loss(job, mode), 7));
      cells.push_back(Right(Percent(At(job, {"components", mode, "recovered"})), 3));
    }
    const std::string served = job["served_mode"];
    const double average = Number(At(job, {"suites_average", served}));
    if (suites) cells.push_back(Right(Fixed(100 * average, 1), 6));
    if (beats) cells.push_back(BeatsWindow(job));
    if (recall) cells.push_back(Right(Percent(At(job, {"recall", "value"})), 6));
    rows.push_back(std::move(cells));
  }
  return rows;
}

std::string NarrowText(const json& comparison) {
  std::string text;
  if (const double base = BaseLoss(comparison); std::isfinite(base))
    text += "the base: loss " + Fixed(base, 4) + "\n";
  for (const auto& job : comparison["jobs"]) {
    Rows rows;
    for (const auto& mode : kBranches) {
      rows.push_back({"  " + mode, Loss(job, mode),
                      Right(Percent(At(job, {"components", mode, "recovered"})), 3) + " %"});
    }
    text += Name(job) + ": " + Verdict(job) + "\n" + Table(rows);
    text += "  beats window: " + BeatsWindow(job);
    const std::string recall = Percent(At(job, {"recall", "value"}));
    if (recall != "-") text += ", recall " + recall + " %";
    text += "\n";
  }
  return text;
}

std::string HeadText(const json& comparison, const TextStyle& style) {
  std::string table = Table(WideRows(comparison));
  std::string legend =
      "Losses in nats per token on held-out text; * is the mode that is served.\n"
      "%: what the mode recovers of attention's worth (100 the base, 0 no context).\n";
  if (Any(comparison, {"suites_average"})) legend += "SUITES: mean accuracy of the served mode.\n";
  if (Any(comparison, {"beats_window"}))
    legend += "BEATS: as served, better than a window alone, untrained and trained.\n";
  if (Any(comparison, {"recall", "value"}))
    legend += "RECALL: beyond the stacked windows, in % of the base's.\n";
  const size_t widest = table.find('\n');
  const bool fits = style.width >= kWideFrom && widest <= static_cast<size_t>(style.width);
  return (fits ? table : NarrowText(comparison)) + legend;
}

// Columns that do not fit beside each other stand below each other.
std::string Wrapped(const Rows& rows, int width) {
  std::string text;
  size_t first = 1;
  while (first < rows[0].size()) {
    size_t last = first + 1;
    std::string best;
    for (size_t end = first + 1; end <= rows[0].size(); ++end) {
      Rows part;
      for (const auto& row : rows) {
        part.push_back({row[0]});
        for (size_t i = first; i < end; ++i) part.back().push_back(row[i]);
      }
      std::string table = Table(part);
      if (!best.empty() && table.find('\n') > static_cast<size_t>(width)) break;
      best = std::move(table);
      last = end;
    }
    text += best;
    first = last;
  }
  return text;
}

std::string PairedText(const json& comparison) {
  const auto& paired = comparison["paired"];
  if (!paired.is_object()) return "";
  Rows rows;
  for (const auto& row : paired["rows"]) {
    if (row["name"] == paired["best"]) continue;
    rows.push_back(
        {"  " + Cut(row["name"].get<std::string>(), kLongestName),
         "+" + Fixed(Number(row["difference"]), 4),
         "(95 %: " + Fixed(Number(row["low"]), 4) + " to " + Fixed(Number(row["high"]), 4) + ")"});
  }
  return "\nLoss as served, above that of " + paired["best"].get<std::string>() + ", over " +
         std::to_string(paired["sequences"].get<int64_t>()) + " sequences:\n" + Table(rows);
}

std::string RecallText(const json& comparison, const TextStyle& style) {
  const auto columns = RecallColumns(comparison);
  if (columns.empty()) return "";
  Rows rows = {{"RUN"}};
  for (const auto& column : columns) rows[0].push_back(column.Title());
  const auto add = [&](const std::string& name, const json& job, const std::string& mode) {
    rows.push_back({name});
    for (const auto& column : columns) {
      rows.back().push_back(Right(Percent(RecallFigure(job, column, mode)), column.Title().size()));
    }
  };
  if (std::isfinite(BaseLoss(comparison))) add("the base", comparison["jobs"][0], "softmax");
  for (const auto& job : comparison["jobs"]) add(Name(job), job, job["served_mode"]);
  return "\nRecall as served, % of the prompts (@ tokens back, : facts or pairs):\n" +
         Wrapped(rows, style.width);
}

std::string SuiteText(const json& comparison, const TextStyle& style) {
  const auto suites = SuiteNames(comparison);
  if (suites.empty()) return "";
  size_t widest = std::string("the base").size();
  for (const auto& job : comparison["jobs"]) widest = std::max(widest, Name(job).size());
  const auto padded = [&](const std::string& name) {
    return name + std::string(widest - name.size() + 2, ' ');
  };
  Rows rows = {{padded("RUN") + "MODE"}};
  for (const auto& suite : suites) rows[0].push_back(Right(suite, 6));
  const auto add = [&](const std::string& name, const json& job, const std::string& mode) {
    std::vector<std::string> cells = {name};
    bool known = false;
    for (size_t i = 0; i < suites.size(); ++i) {
      const double value = Number(SuiteFigure(job, suites[i], mode));
      known = known || std::isfinite(value);
      // Shares in percent; perplexities as they are.
      const std::string text = value > 1 ? Fixed(value, 2) : Fixed(100 * value, 1);
      cells.push_back(Right(text, rows[0][i + 1].size()));
    }
    if (known) rows.push_back(std::move(cells));
  };
  if (std::isfinite(BaseLoss(comparison)))
    add(padded("the base") + "softmax", comparison["jobs"][0], "softmax");
  for (const auto& job : comparison["jobs"]) {
    for (const auto& mode : kBranches) add(padded(Name(job)) + mode, job, mode);
  }
  return "\nSuites, % right (perplexities as they are):\n" + Wrapped(rows, style.width);
}

std::string CostText(const json& comparison) {
  if (!Any(comparison, {"cost"})) return "";
  Rows rows = {{"RUN", Right("TIME", 7), Right("TOKENS", 12), "PEAK MEMORY"}};
  for (const auto& job : comparison["jobs"]) {
    rows.push_back({Name(job), Right(Time(job), 7),
                    Right(Grouped(Number(At(job, {"cost", "tokens"}))), 12),
                    Right(Memory(job), 11)});
  }
  return "\nTraining cost:\n" + Table(rows);
}

// Names with commas; "the others" where most runs have the value.
std::string RunNames(const json& entry, const json& difference, size_t runs) {
  const size_t own = entry["jobs"].size();
  const bool is_most = 2 * own > runs && own > 2 && difference["values"].size() > 1;
  if (is_most) return "the others";
  std::string names;
  for (const auto& name : entry["jobs"])
    names += (names.empty() ? "" : ", ") + Cut(name.get<std::string>(), kLongestName);
  return names;
}

std::string DifferenceText(const json& comparison) {
  const auto& differences = comparison["differences"];
  if (differences.empty()) return "";
  Rows rows = {{"FIELD", "VALUE", "RUNS"}};
  for (const auto& difference : differences) {
    std::string field = difference["field"].get<std::string>();
    for (const auto& entry : difference["values"]) {
      const auto& value = entry["value"];
      const std::string names = RunNames(entry, difference, comparison["jobs"].size());
      const std::string text = value.is_null()     ? "-"
                               : value.is_string() ? value.get<std::string>()
                                                   : value.dump();
      rows.push_back({field, Cut(text, kLongestValue), names});
      field.clear();
    }
  }
  return "\nWhat differs in their specs:\n" + Table(rows);
}

}  // namespace

std::string ComparisonText(const json& comparison, const TextStyle& style) {
  std::string text = HeadText(comparison, style) + PairedText(comparison) +
                     RecallText(comparison, style) + SuiteText(comparison, style) +
                     CostText(comparison) + DifferenceText(comparison);
  for (const auto& note : comparison["notes"]) text += "Note: " + note.get<std::string>() + "\n";
  return text;
}

}  // namespace tandem::cli
