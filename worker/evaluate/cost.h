// Cost: what a job took, for the report, stage by stage beside what had been expected.
//
// The ranks' metrics.jsonl are the source (worker/rank/metrics_log.h): per (stage, step) the line
// of the newest attempt counts, as steps that a crash lost were paid for but bought nothing; they
// are in `repeated_seconds`. A stage's seconds are its steps': saving, early stop's measurements
// and waiting between attempts are not in them. Memory is the largest resident set: of rank 0 by
// stage, of any rank of this attempt since its start, and on a CUDA device also what
// tensors held. The estimates are the first attempt's (estimate.h). Not for timing comparisons:
// seconds are wall time with whatever else ran on the machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "worker/evaluate/estimate.h"

namespace tandem {

struct StageCost {
  std::string stage;
  int64_t stage_index = 0;
  int64_t steps = 0;  // 0: the stage does not count steps
  double tokens = 0, seconds = 0;
  double peak_memory_bytes = 0;  // 0: not known
  bool reused = false;           // another job's steps: the cache's result was taken over
  std::optional<StageEstimate> estimate;
};

struct Cost {
  double tokens = 0, seconds = 0;  // of the training stages
  double repeated_seconds = 0;     // of steps that were made again
  double peak_memory_bytes = 0;
  std::vector<StageCost> stages;  // training, then evaluate
};

// The training stages, from <job_folder>/attempts/*/metrics.jsonl. Lines that cannot be read are
// left out: a killed rank leaves half a line.
Cost TrainingCost(const std::string& job_folder);

// Gives each stage what estimate.json says of it.
void AddEstimates(const Estimate& estimate, Cost* cost);

// actual / expected - 1; nothing where either is not known.
std::optional<double> RelativeError(double actual, double expected);

}  // namespace tandem
