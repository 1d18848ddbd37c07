#include "cli/progress.h"

#include <utility>

#include "cli/job_text.h"

namespace tandem::cli {
namespace {

constexpr int64_t kLineEveryMs = 10'000;
constexpr int64_t kRedrawEveryMs = 100;

}  // namespace

ProgressPrinter::ProgressPrinter(bool terminal, TextStyle style, const Clock& clock,
                                 std::function<void(const std::string&)> print)
    : terminal_(terminal), style_(style), clock_(clock), print_(std::move(print)) {}

void ProgressPrinter::Show(const v1::Job& job) {
  if (plan_ && !IsTerminal(job.state())) {
    const std::string plan = plan_(job);
    if (!plan.empty()) {
      Note(plan);
      plan_ = nullptr;
    }
  }
  if (!job.reason().empty() && job.reason() == hidden_reason_) return;
  // The outcome tells why (outcome.h); twice would be noise.
  if (job.state() == v1::JOB_STATE_FAILED || job.state() == v1::JOB_STATE_CANCELLED) return;
  const bool runs = job.state() == v1::JOB_STATE_RUNNING;
  const std::string key = StateText(job.state()) + " " + std::to_string(job.epoch()) + " " +
                          (runs ? job.progress().stage() : job.reason());
  const int64_t now = clock_.MonotonicMs();
  const bool changed = key != last_key_;
  const int64_t pause = terminal_ ? kRedrawEveryMs : kLineEveryMs;
  if (!changed && now - last_ms_ < pause) return;
  last_ms_ = now;
  if (!terminal_) {
    print_(ShortName(job.name()) + ": " + ProgressWords(job) + "\n");
  } else {
    // A finished stage keeps its last line; the new one starts below.
    if (changed && bar_stands_) print_("\n");
    print_("\r\x1b[K" + ProgressBar(job, style_));
    bar_stands_ = true;
  }
  last_key_ = key;
}

void ProgressPrinter::Note(const std::string& line) {
  if (terminal_ && bar_stands_) print_("\r\x1b[K");
  print_(line + "\n");
  bar_stands_ = false;
}

void ProgressPrinter::Finish() {
  if (terminal_ && bar_stands_) print_("\n");
  bar_stands_ = false;
}

ProgressPrinter StderrProgress() {
  return ProgressPrinter(StderrIsTerminal(), StyleOfStderr(), Clock::System(), PrintErr);
}

}  // namespace tandem::cli
