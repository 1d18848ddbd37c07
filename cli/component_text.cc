#include "cli/component_text.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cli/align.h"
#include "cli/job_text.h"
#include "spec/json.h"

namespace tandem::cli {
namespace {

constexpr int kBarCells = 20;
constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();
const std::vector<std::string> kModes = {"softmax",     "hybrid",     "window_only",
                                         "linear_only", "sinks_only", "none"};

std::string ModeWords(const std::string& mode, int64_t sinks) {
  if (mode == "softmax") return "the base model's own attention";
  if (mode == "hybrid") return "both branches: the result";
  if (mode == "window_only") return "the window alone";
  if (mode == "linear_only") return "the linear branch alone";
  if (mode == "sinks_only") return "the first " + std::to_string(sinks) + " tokens alone";
  if (mode == "none") return "no attention at all";
  return "-";
}

std::string PercentText(double share) {
  return std::isfinite(share) ? Fixed(100 * share, 0) + " %" : "-";
}

std::string VerdictWords(const v1::ComponentReport& report) {
  const std::string& verdict = report.verdict();
  if (verdict == "balanced") return "both components pull";
  if (verdict == "leaning") return "one component does most of the work";
  if (verdict != "collapsed") return "";
  const auto hybrid = report.components().find("hybrid");
  const bool is_lost = hybrid != report.components().end() && hybrid->second.has_recovered() &&
                       hybrid->second.recovered() <= 0;
  return is_lost ? "the conversion lost the model"
                 : "the linear branch is bypassed: the window does the work";
}

Colour VerdictColour(const std::string& verdict) {
  if (verdict == "balanced") return Colour::kGreen;
  return verdict == "leaning" ? Colour::kYellow : Colour::kRed;
}

std::string ModeTable(const v1::ComponentReport& report, int64_t sinks, const TextStyle& style) {
  std::vector<std::vector<std::string>> rows = {
      {"MODE", "WHAT IS ON", Right("LOSS", 7), Right("PERPLEXITY", 10), "RECOVERED"}};
  for (const auto& mode : kModes) {
    const auto found = report.components().find(mode);
    if (found == report.components().end()) continue;
    const auto& result = found->second;
    const double share = result.has_recovered() ? result.recovered() : kUndefined;
    std::string recovered = Right(PercentText(share), 6);
    if (std::isfinite(share)) recovered += "  " + Bar(share, kBarCells, style);
    rows.push_back({mode, ModeWords(mode, sinks), Right(Fixed(result.loss(), 4), 7),
                    Right(Fixed(result.perplexity(), 2), 10), recovered});
  }
  return Table(rows);
}

std::string VerdictText(const v1::ComponentReport& report, const TextStyle& style) {
  std::string text =
      "Verdict: " + Coloured(report.verdict(), VerdictColour(report.verdict()), style);
  if (const auto words = VerdictWords(report); !words.empty()) text += " - " + words;
  text += ".\n";
  if (!report.verdict_reason().empty()) text += "  " + report.verdict_reason() + "\n";
  text += "  What the linear branch adds to the window: " + Fixed(report.linear_delta(), 4) +
          " nats per token (95 %: " + Fixed(report.linear_delta_low(), 4) + " to " +
          Fixed(report.linear_delta_high(), 4) + "), " +
          PercentText(report.has_beyond_window() ? report.beyond_window() : kUndefined) +
          " of what lies beyond the window.\n";
  return text;
}

std::string PasskeyTable(const v1::ComponentReport& report) {
  if (report.passkey().empty()) return "";
  const std::vector<std::string> modes = {"softmax", "hybrid", "window_only", "linear_only"};
  std::vector<std::vector<std::string>> rows = {{"DISTANCE"}};
  for (const auto& mode : modes) rows[0].push_back(Right(mode, 11));
  for (const auto& row : report.passkey()) {
    std::vector<std::string> cells = {Right(std::to_string(row.distance()), 8)};
    for (const auto& mode : modes) {
      const auto found = row.accuracy().find(mode);
      cells.push_back(Right(found == row.accuracy().end() ? "-" : PercentText(found->second), 11));
    }
    rows.push_back(cells);
  }
  return "\nPasskey: how often a number is repeated that was read so many tokens ago.\n" +
         Table(rows);
}

nlohmann::json NumberOrNull(double value, bool is_set = true) {
  return is_set && std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

}  // namespace

std::string ComponentTable(const v1::ComponentReport& report, int64_t sinks,
                           const TextStyle& style) {
  return ModeTable(report, sinks, style) +
         "Recovered: 0 % reads the first tokens alone (sinks_only), 100 % is the base model's "
         "attention (softmax).\n\n" +
         VerdictText(report, style) + PasskeyTable(report);
}

nlohmann::json ResultJson(const v1::Job& job) {
  nlohmann::json result = {{"job", job.name()},
                           {"uid", job.uid()},
                           {"state", StateText(job.state())},
                           {"artifact", job.artifact()},
                           {"report", job.report_path()}};
  if (!job.reason().empty()) result["reason"] = job.reason();
  if (!job.message().empty()) result["message"] = job.message();
  const auto& report = job.report();
  result["verdict"] = job.has_report() ? nlohmann::json(report.verdict()) : nlohmann::json(nullptr);
  result["components"] = nlohmann::json::object();
  if (!job.has_report()) return result;
  result["verdict_reason"] = report.verdict_reason();
  result["linear_capability"] =
      NumberOrNull(report.linear_capability(), report.has_linear_capability());
  result["beyond_window"] = NumberOrNull(report.beyond_window(), report.has_beyond_window());
  result["state_swap_delta"] = NumberOrNull(report.state_swap_delta());
  result["linear_delta"] = {{"value", NumberOrNull(report.linear_delta())},
                            {"low", NumberOrNull(report.linear_delta_low())},
                            {"high", NumberOrNull(report.linear_delta_high())}};
  for (const auto& [mode, component] : report.components()) {
    result["components"][mode] = ProtoToJson(component);
    result["components"][mode]["recovered"] =
        NumberOrNull(component.recovered(), component.has_recovered());
  }
  result["passkey"] = nlohmann::json::array();
  for (const auto& row : report.passkey()) result["passkey"].push_back(ProtoToJson(row));
  return result;
}

int VerdictRank(const std::string& verdict) {
  if (verdict == "balanced") return 2;
  if (verdict == "leaning") return 1;
  return verdict == "collapsed" ? 0 : -1;
}

}  // namespace tandem::cli
