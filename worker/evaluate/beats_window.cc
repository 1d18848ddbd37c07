#include "worker/evaluate/beats_window.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/files.h"
#include "worker/data/json_file.h"
#include "worker/evaluate/bootstrap.h"
#include "worker/evaluate/nats.h"
#include "worker/evaluate/token_mean.h"

namespace tandem {
namespace {

using nlohmann::json;

// Two runs of one base on the same tokens differ by rounding only (threads, base type).
constexpr double kSameBase = 0.02;

ControlComparison Compare(const std::vector<double>& control, const std::vector<double>& served,
                          const BeatsWindowInputs& inputs) {
  std::vector<double> differences;
  for (size_t i = 0; i < served.size(); ++i) differences.push_back(control[i] - served[i]);
  const std::vector<double>& targets = inputs.losses.targets;
  const Interval interval = BootstrapInterval(differences, targets, inputs.bootstrap, inputs.seed);
  return {TokenMean(control, targets), TokenMean(differences, targets), interval.low,
          interval.high};
}

bool IsBeaten(const ControlComparison& control) {
  return std::isfinite(control.delta) && control.low >= kBeatsWindowMargin;
}

std::string Describe(const char* name, const ControlComparison& control) {
  return std::string(IsBeaten(control) ? "better than " : "not shown to be better than ") + name +
         " by at least " + Nats(kBeatsWindowMargin) + " nats (" + Nats(control.delta) +
         ", 95 % interval [" + Nats(control.low) + ", " + Nats(control.high) + "])";
}

// Empty when the control's losses are about the same base and tokens as ours.
std::string Mismatch(const PairedLosses& ours, const ControlReport& control) {
  const PairedLosses& theirs = control.losses;
  if (theirs.sequence_length != ours.sequence_length) {
    return "its sequences have " + std::to_string(theirs.sequence_length) + " tokens, ours " +
           std::to_string(ours.sequence_length);
  }
  const bool has_digests = !theirs.validation_sha256.empty() && !ours.validation_sha256.empty();
  if (has_digests && theirs.validation_sha256 != ours.validation_sha256) {
    return "its validation text is another one (validation_sha256)";
  }
  const auto& base = ours.per_sequence.at("softmax");
  const auto& their_base = theirs.per_sequence.at("softmax");
  if (their_base.size() != base.size()) {
    return "it has " + std::to_string(their_base.size()) + " sequences, this job " +
           std::to_string(base.size());
  }
  for (size_t i = 0; i < base.size(); ++i) {
    if (!(std::fabs(base[i] - their_base[i]) <= kSameBase)) {
      return "its base's loss of sequence " + std::to_string(i) + " is " + Nats(their_base[i]) +
             ", ours " + Nats(base[i]) + ": another base or other tokens";
    }
  }
  return "";
}

bool ReadLosses(const json& root, const std::string& mode, PairedLosses* losses) {
  std::vector<double>& values = losses->per_sequence[mode];
  for (const json& value : ListOf(MemberOf(root, "per_sequence"), mode.c_str())) {
    values.push_back(value.is_number() ? value.get<double>() : NAN);
  }
  return !values.empty();
}

// Fills out->trained, or says why not.
std::string CompareTrained(const BeatsWindowInputs& inputs, BeatsWindow* out) {
  if (inputs.control_path.empty()) {
    return "a trained window_only control was not given (evaluate.control)";
  }
  const Result<ControlReport> control = ReadControlReport(inputs.control_path);
  if (!control.ok()) {
    return "the trained control was not compared: " + control.status().message();
  }
  const std::string mismatch = Mismatch(inputs.losses, *control);
  if (!mismatch.empty()) {
    return "the trained control " + inputs.control_path + " cannot be paired: " + mismatch;
  }
  out->trained = Compare(control->losses.per_sequence.at(control->served_mode),
                         inputs.losses.per_sequence.at(inputs.served_mode), inputs);
  std::string words = Describe("the trained window", *out->trained);
  if (control->trained_tokens > 0 && inputs.trained_tokens > 0 &&
      control->trained_tokens != inputs.trained_tokens) {
    char budget[96];
    std::snprintf(budget, sizeof budget, "; it was trained on %.0f tokens, this conversion on %.0f",
                  control->trained_tokens, inputs.trained_tokens);
    words += budget;
  }
  return words;
}

}  // namespace

Result<ControlReport> ReadControlReport(const std::string& path) {
  TANDEM_ASSIGN_OR_RETURN(const json root, ReadJsonObject(path));
  if (IntegerOf(root, "version") != 1) {
    return InvalidArgument(path + " is not a report.json of version 1");
  }
  ControlReport report;
  report.served_mode = TextOf(root, "served_mode");
  if (report.served_mode != "window_only") {
    return InvalidArgument(path + " is a report of a model served in mode \"" + report.served_mode +
                           "\"; the control is a job of recipe " +
                           "window_control, served in window_only");
  }
  if (!ReadLosses(root, "softmax", &report.losses) ||
      !ReadLosses(root, report.served_mode, &report.losses) ||
      report.losses.per_sequence["softmax"].size() !=
          report.losses.per_sequence[report.served_mode].size()) {
    return InvalidArgument(path + " has no losses per sequence (per_sequence): evaluate it anew");
  }
  report.losses.sequence_length = IntegerOf(root, "sequence_length", 0);
  report.losses.validation_sha256 = TextOf(root, "validation_sha256");
  report.trained_tokens = RealOf(MemberOf(root, "cost"), "tokens");
  return report;
}

BeatsWindow CompareWithWindows(const BeatsWindowInputs& inputs) {
  BeatsWindow out;
  if (inputs.served_mode == "window_only") {
    out.words = "this model is itself a window: a control for others";
    return out;
  }
  const auto& per_sequence = inputs.losses.per_sequence;
  out.training_free =
      Compare(per_sequence.at("training_free"), per_sequence.at(inputs.served_mode), inputs);
  const std::string trained = CompareTrained(inputs, &out);
  out.words = inputs.served_mode + " is " +
              Describe("the base's window without training", *out.training_free) + "; " + trained;
  if (!IsBeaten(*out.training_free) || (out.trained && !IsBeaten(*out.trained))) {
    out.value = false;
  } else if (out.trained) {
    out.value = true;
  }
  return out;
}

}  // namespace tandem
