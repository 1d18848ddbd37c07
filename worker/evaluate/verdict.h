// Verdict: what the figures of a conversion mean (method.md §8). Pure arithmetic, no torch; any
// thread.
//
// It exists so that a conversion whose linear branch is bypassed is always called collapsed, by one
// rule with one set of thresholds: those below. They are provisional (calibrated on the models
// measured so far) and stand in every report.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

struct VerdictThresholds {
  double collapsed_below = 0.55;      // linear_capability K: less is collapsed
  double leaning_below = 0.75;        // K: less leans on the window
  double window_leaning_below = 0.5;  // recovered(window_only): less leans on the linear branch
  // state_swap_delta as a share of linear_delta: less has no content
  double content_free_below = 0.25;
  // Nats: a linear_delta whose interval does not lie above this is no contribution. Not 0: a branch
  // of weight 1e-5 gains 1e-5 nats in every sequence, with a narrow interval, and does no work.
  double least_linear_delta = 5e-4;
};
inline constexpr VerdictThresholds kVerdictThresholds{};

// Losses in nats per token on the same held-out tokens.
struct VerdictFigures {
  std::map<std::string, double>
      losses;  // softmax, hybrid, window_only, linear_only, sinks_only, none
  double linear_delta_low = 0, linear_delta_high = 0;  // 95 % interval of L_window_only - L_hybrid
  double state_swap_loss = 0;  // hybrid whose linear branch reads another sequence
};

struct Verdict {
  std::string verdict;  // balanced, leaning, collapsed
  std::string reason;   // one sentence with the numbers that decided
  // Per mode: (L_floor - L_mode) / (L_floor - L_softmax), L_floor = L_sinks_only, or L_none where
  // that is lower: a conversion that breaks its own sinks_only must not gain by it. Not set where
  // the scale is not above 0.
  std::map<std::string, std::optional<double>> recovered;
  std::optional<double> linear_capability;  // K = recovered(linear_only)
  std::optional<double> beyond_window;      // beta = max(0, delta) / (L_window_only - L_softmax)
  double linear_delta = 0;                  // L_window_only - L_hybrid
  double state_swap_delta = 0;              // L_swap - L_hybrid
};

// First match of: a figure that is missing, not finite or without scale -> collapsed (nothing is
// shown to pull); K below collapsed_below; the interval reaches 0 (least_linear_delta);
// content-free -> collapsed; K below leaning_below, window share below window_leaning_below ->
// leaning; else balanced.
Verdict Judge(const VerdictFigures& figures,
              const VerdictThresholds& thresholds = kVerdictThresholds);

}  // namespace tandem
