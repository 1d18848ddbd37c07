// Cost: what a job took, for the report, stage by stage beside what had been expected.
//
// The ranks' metrics.jsonl are the source (worker/rank/metrics_log.h): per (stage, step) the line
// of the newest attempt counts, as steps that a crash lost were paid for but bought nothing; they
// are in `repeated_seconds`. A stage's seconds are its steps': saving, early stop's measurements
// and waiting between attempts are not in them. The preparation tells its own cost (attempts/*/
// prepare_cost.json), and the export's stands beside report.json, which is whole before it (<job>/
// artifacts/export_cost.json, an object like those of report.json's cost.stages). Memory is the
// largest resident set: of rank 0 by stage, of any rank of this attempt since its start, and on a
// CUDA device also what tensors held. The estimates are the first attempt's (estimate.h). Not for
// timing comparisons: seconds are wall time with whatever else ran on the machine.
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
  std::vector<StageCost> stages;  // prepare, training, evaluate
};

inline constexpr int64_t kPrepareIndex = -1;  // before the plan's stages

// The training stages, from <job_folder>/attempts/*/metrics.jsonl. Lines that cannot be read are
// left out: a killed rank leaves half a line.
Cost TrainingCost(const std::string& job_folder);

// Of the first attempt that made the tokens; else of one that found them made (reused). Nothing
// where no attempt tells.
std::optional<StageCost> PrepareCost(const std::string& job_folder);

// With its estimate, which is read here.
Status WriteExportCost(const std::string& job_folder, const StageCost& exported);

// Gives each stage what estimate.json says of it.
void AddEstimates(const Estimate& estimate, Cost* cost);

// actual / expected - 1; nothing where either is not known.
std::optional<double> RelativeError(double actual, double expected);

}  // namespace tandem
