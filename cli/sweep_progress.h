// Progress of several jobs on stderr, a line each: redrawn in place on a terminal; otherwise a line
// when a job's state or stage changes, and every 10 s of what runs. Confined to one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/output.h"
#include "tandem/v1/job.pb.h"

namespace tandem::cli {

struct SweepLine {
  std::string name;  // the run's
  v1::Job job;       // as last seen
};

class SweepProgress {
 public:
  SweepProgress(bool terminal, TextStyle style, const Clock& clock,
                std::function<void(const std::string&)> print);

  void Show(const std::vector<SweepLine>& lines);
  // A line of its own; the block is drawn anew below it.
  void Note(const std::string& line);

 private:
  struct Told {
    std::string key;  // state, attempt, stage
    int64_t ms = 0;
  };
  void Redraw(const std::vector<SweepLine>& lines);
  void Tell(const std::vector<SweepLine>& lines);

  const bool terminal_;
  const TextStyle style_;
  const Clock& clock_;
  const std::function<void(const std::string&)> print_;
  size_t lines_drawn_ = 0;
  std::string drawn_;
  std::vector<Told> told_;
};

}  // namespace tandem::cli
