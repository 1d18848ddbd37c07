// Estimate: what a job was expected to cost, written before its first step and never again.
//
//   <job>/artifacts/estimate.json  {"version": 1, "ranks", "device", "seconds", "stages":
//   [{"stage",
//     "stage_index", "steps" (training), "tokens", "flop_per_token", "flop_per_second", "seconds",
//     "memory_bytes"}]}    prepare (stage_index -1), the plan's stages, evaluate, export
// Seconds and rates are of all ranks together, memory is one rank's. The first attempt that gets so
// far writes it; a later one finds it and keeps it, so that what is compared with the actual is
// what was said before anything was paid. Torch-free; blocking files; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace tandem {

struct StageEstimate {
  std::string stage;  // prepare, attention_transfer, finetune, evaluate, export
  int64_t stage_index = 0;
  int64_t steps = 0;  // 0: the stage does not count steps
  double tokens = 0;
  double flop_per_token = 0;   // useful (cost_model.h)
  double flop_per_second = 0;  // as measured before the start
  double memory_bytes = 0;
  double given_seconds = 0;  // of prepare and export, whose operations nobody counts
  double seconds() const {
    return flop_per_second > 0 ? tokens * flop_per_token / flop_per_second : given_seconds;
  }
};

struct Estimate {
  int64_t ranks = 1;
  std::string device;
  std::vector<StageEstimate> stages;
};

std::string EstimatePath(const std::string& job_folder);
Status WriteEstimate(const std::string& job_folder, const Estimate& estimate);
// No stages when there is no such file or it cannot be read: then there is nothing to compare.
Estimate ReadEstimate(const std::string& job_folder);

}  // namespace tandem
