#include "cli/sweep_progress.h"

#include <algorithm>
#include <utility>

#include "cli/job_text.h"

namespace tandem::cli {
namespace {

constexpr int64_t kRunLineEveryMs = 10'000;

std::string Words(const v1::Job& job) {
  const bool is_control = job.spec().recipe() == "window_control";  // it is not judged
  if (job.state() == v1::JOB_STATE_SUCCEEDED && !job.report().verdict().empty() && !is_control)
    return "SUCCEEDED: " + job.report().verdict();
  if (job.state() == v1::JOB_STATE_PENDING) return "waits for its turn";
  return ProgressWords(job);
}

bool IsWaiting(const v1::Job& job) {
  return job.state() == v1::JOB_STATE_PENDING;
}

}  // namespace

SweepProgress::SweepProgress(bool terminal, TextStyle style, const Clock& clock,
                             std::function<void(const std::string&)> print)
    : terminal_(terminal), style_(style), clock_(clock), print_(std::move(print)) {}

void SweepProgress::Show(const std::vector<SweepLine>& lines) {
  terminal_ ? Redraw(lines) : Tell(lines);
}

void SweepProgress::Note(const std::string& line) {
  print_(line + "\n");
  lines_drawn_ = 0;
  drawn_.clear();
}

void SweepProgress::Redraw(const std::vector<SweepLine>& lines) {
  size_t widest = 0;
  for (const auto& line : lines) widest = std::max(widest, line.name.size());
  std::string block;
  for (const auto& [name, job] : lines) {
    const std::string head = name + std::string(widest - name.size() + 2, ' ');
    TextStyle rest = style_;
    rest.width = std::max(10, style_.width - static_cast<int>(head.size()));
    const bool runs = job.state() == v1::JOB_STATE_RUNNING && !IsTerminal(job.state());
    const std::string words =
        runs ? ProgressBar(job, rest) : Words(job).substr(0, static_cast<size_t>(rest.width));
    block += "\x1b[K" + head + words + "\n";
  }
  if (block == drawn_) return;
  if (lines_drawn_ > 0) print_("\x1b[" + std::to_string(lines_drawn_) + "A\r");
  print_(block);
  lines_drawn_ = lines.size();
  drawn_ = std::move(block);
}

void SweepProgress::Tell(const std::vector<SweepLine>& lines) {
  told_.resize(std::max(told_.size(), lines.size()));
  const int64_t now = clock_.MonotonicMs();
  for (size_t i = 0; i < lines.size(); ++i) {
    const v1::Job& job = lines[i].job;
    const bool runs = job.state() == v1::JOB_STATE_RUNNING;
    const std::string key = StateText(job.state()) + " " + std::to_string(job.epoch()) + " " +
                            (runs ? job.progress().stage() : "");
    const bool changed = key != told_[i].key;
    if (changed && told_[i].key.empty() && IsWaiting(job)) continue;  // its turn has not come
    if (!changed && (!runs || now - told_[i].ms < kRunLineEveryMs)) continue;
    told_[i] = {key, now};
    print_(lines[i].name + ": " + Words(job) + "\n");
  }
}

}  // namespace tandem::cli
