// beats_window: is the conversion better than a window that needed no linear branch at all?
//
// A balanced conversion can still be useless: so its served mode is compared, on the same tokens,
// with (a) the training-free base behind a window and 4 sinks and (b) a LoRA trained in mode
// window_only, the report of another job (evaluate.control). Better means: the whole 95 % paired
// bootstrap interval of control - served lies at or above the margin (method.md §8). Both must be
// beaten; what was not compared is never called beaten. Reads report.json files; otherwise pure
// arithmetic. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem {

inline constexpr double kBeatsWindowMargin = 0.01;  // nats

struct ControlComparison {
  double loss = 0;   // of the control
  double delta = 0;  // loss of the control - loss of the served mode
  double low = 0, high = 0;
};

struct BeatsWindow {
  std::optional<bool> value;  // not set: one control is missing and the other is beaten
  std::optional<ControlComparison> training_free, trained;
  double margin = kBeatsWindowMargin;
  std::string words;
};

// Losses per sequence, by mode; and what must agree for two reports to be about the same tokens.
struct PairedLosses {
  std::map<std::string, std::vector<double>> per_sequence;
  std::vector<double>
      targets;  // of each sequence; a control's are those of the job it is paired with
  int64_t sequence_length = 0;
  std::string validation_sha256;  // empty: not known
};

// What another job's report.json holds of that; its served mode's losses are the control's. Also
// the tokens it was trained on, 0 where it does not say.
struct ControlReport {
  PairedLosses losses;
  std::string served_mode;
  double trained_tokens = 0;
};
Result<ControlReport> ReadControlReport(const std::string& path);

struct BeatsWindowInputs {
  const PairedLosses& losses;  // must hold softmax, training_free and the served mode
  std::string served_mode;
  std::string control_path;  // report.json, or empty
  double trained_tokens = 0;
  int64_t bootstrap = 1000;
  uint64_t seed = 0;
};
BeatsWindow CompareWithWindows(const BeatsWindowInputs& inputs);

}  // namespace tandem
