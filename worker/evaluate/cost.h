// Cost: what a job took, for the report: tokens and seconds of its training stages over all
// attempts, and the memory at its peak.
//
// The ranks' metrics.jsonl are the source (worker/rank/metrics_log.h): per (stage, step) the line
// of the newest attempt counts, as steps that a crash lost were paid for but bought nothing; they
// are in `repeated_seconds`. Memory is the largest resident set of any rank of this attempt since
// its start (getrusage), and on a CUDA device also the allocator's peak. Not for timing
// comparisons: seconds are wall time with whatever else ran on the machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

struct StageCost {
  std::string stage;
  int64_t stage_index = 0;
  double tokens = 0, seconds = 0;
};

struct Cost {
  double tokens = 0, seconds = 0;  // of all stages below
  double repeated_seconds = 0;     // of steps that were made again
  double peak_memory_bytes = 0;
  std::vector<StageCost> stages;
};

// The training stages, from <job_folder>/attempts/*/metrics.jsonl. Lines that cannot be read are
// left out: a killed rank leaves half a line.
Cost TrainingCost(const std::string& job_folder);

// Bytes of this process's largest resident set so far.
double PeakResidentBytes();

}  // namespace tandem
