// Progress of one job on stderr: a bar that redraws itself on a terminal, otherwise a plain line at
// most every 10 s and on each change of state or stage. Confined to one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "base/clock.h"
#include "cli/output.h"
#include "tandem/v1/job.pb.h"

namespace tandem::cli {

class ProgressPrinter {
 public:
  // `print` takes raw text, control characters included.
  ProgressPrinter(bool terminal, TextStyle style, const Clock& clock,
                  std::function<void(const std::string&)> print);

  void Show(const v1::Job& job);
  // Jobs that wait for this reason are not shown: `tandem run` knows that its worker is on the way.
  void HideReason(std::string reason) { hidden_reason_ = std::move(reason); }
  // Asked at each Show of a job that has not ended, until it gives a text: that is shown once.
  void ShowPlan(std::function<std::string(const v1::Job&)> plan) { plan_ = std::move(plan); }
  // A line of its own, above the bar.
  void Note(const std::string& line);
  // Leaves the bar behind; what follows starts on a fresh line.
  void Finish();

 private:
  bool terminal_;
  TextStyle style_;
  const Clock& clock_;
  std::function<void(const std::string&)> print_;
  bool bar_stands_ = false;
  std::string hidden_reason_;
  std::function<std::string(const v1::Job&)> plan_;
  std::string last_key_;  // state, attempt, and stage or reason of the last line
  int64_t last_ms_ = 0;
};

// On this process's stderr.
ProgressPrinter StderrProgress();

}  // namespace tandem::cli
