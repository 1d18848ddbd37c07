#include "worker/evaluate/verdict.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "worker/evaluate/nats.h"

namespace tandem {
namespace {

constexpr const char* kModes[] = {"softmax",     "hybrid",     "window_only",
                                  "linear_only", "sinks_only", "none"};

std::string Percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f %%", 100 * share);
  return text;
}

// The name of the first figure that cannot be judged; empty if all can.
std::string FirstUnusable(const VerdictFigures& figures) {
  for (const char* mode : kModes) {
    const auto found = figures.losses.find(mode);
    if (found == figures.losses.end()) return std::string("the loss of ") + mode + " is missing";
    if (!std::isfinite(found->second)) return std::string("the loss of ") + mode + " is not finite";
  }
  if (!std::isfinite(figures.state_swap_loss)) return "the loss of state_swap is not finite";
  if (!std::isfinite(figures.linear_delta_low) || !std::isfinite(figures.linear_delta_high)) {
    return "the interval of the linear branch's worth is not finite";
  }
  return "";
}

void FillFigures(const VerdictFigures& figures, Verdict* out) {
  const auto loss = [&figures](const char* mode) { return figures.losses.at(mode); };
  out->linear_delta = loss("window_only") - loss("hybrid");
  out->state_swap_delta = figures.state_swap_loss - loss("hybrid");
  const double floor = std::min(loss("sinks_only"), loss("none"));
  const double scale = floor - loss("softmax");
  for (const char* mode : kModes) {
    std::optional<double>& share = out->recovered[mode];
    if (scale > 0) share = (floor - loss(mode)) / scale;
  }
  out->linear_capability = out->recovered["linear_only"];
  const double beyond = loss("window_only") - loss("softmax");
  if (beyond > 0) out->beyond_window = std::max(0.0, out->linear_delta) / beyond;
}

Verdict Say(Verdict verdict, const char* word, const std::string& reason) {
  verdict.verdict = word;
  verdict.reason = reason;
  return verdict;
}

}  // namespace

Verdict Judge(const VerdictFigures& figures, const VerdictThresholds& thresholds) {
  Verdict verdict;
  for (const char* mode : kModes) verdict.recovered[mode] = std::nullopt;
  const std::string unusable = FirstUnusable(figures);
  if (!unusable.empty()) {
    return Say(verdict, "collapsed", unusable + ": no component is shown to pull");
  }
  FillFigures(figures, &verdict);
  if (!verdict.linear_capability) {
    return Say(verdict, "collapsed",
               "the base's attention is worth nothing on this text (softmax is not better than the "
               "first tokens alone): no component is shown to pull");
  }
  const double capability = *verdict.linear_capability;
  const double hybrid_share = *verdict.recovered["hybrid"];
  const double window_share = *verdict.recovered["window_only"];
  const std::string alone =
      "the linear branch alone recovers " + Percent(capability) + " of what attention is worth";
  if (capability < thresholds.collapsed_below && hybrid_share <= 0) {
    return Say(verdict, "collapsed",
               "the hybrid recovers " + Percent(hybrid_share) +
                   " of what attention is worth, no more than no context: training lost the model; "
                   "lower the learning rates");
  }
  if (capability < thresholds.collapsed_below) {
    return Say(
        verdict, "collapsed",
        alone + "; " + Percent(thresholds.collapsed_below) + " is the least: it is bypassed");
  }
  if (figures.linear_delta_low <= thresholds.least_linear_delta) {
    return Say(verdict, "collapsed",
               "without the linear branch the loss changes by " + Nats(verdict.linear_delta) +
                   " nats, and the 95 % interval [" + Nats(figures.linear_delta_low) + ", " +
                   Nats(figures.linear_delta_high) + "] is not above " +
                   Nats(thresholds.least_linear_delta) + ": it brings nothing to the mix");
  }
  const double needed = thresholds.content_free_below * std::max(0.0, verdict.linear_delta);
  if (verdict.state_swap_delta < needed) {
    return Say(verdict, "collapsed",
               "reading another sequence's state costs " + Nats(verdict.state_swap_delta) +
                   " nats; at least " + Nats(needed) + " is needed: the branch has no content");
  }
  if (capability < thresholds.leaning_below) {
    return Say(verdict, "leaning",
               "it leans on the window: " + alone + "; " + Percent(thresholds.leaning_below) +
                   " is needed for balanced");
  }
  if (window_share < thresholds.window_leaning_below) {
    return Say(verdict, "leaning",
               "it leans on the linear branch: the window alone recovers " + Percent(window_share) +
                   " of what attention is worth; " + Percent(thresholds.window_leaning_below) +
                   " is needed for balanced");
  }
  return Say(verdict, "balanced",
             alone + ", the window alone " + Percent(window_share) + "; together they save " +
                 Nats(verdict.linear_delta) + " nats over the window alone");
}

}  // namespace tandem
