// The stages after training: evaluate and export. Both read committed parameters and write files
// that a second run writes again, so neither has a checkpoint of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "worker/comm/collective.h"
#include "worker/data/token_shards.h"
#include "worker/evaluate/peak_memory.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"

namespace tandem {

struct ClosingInputs {
  const Plan& plan;
  const Llama& model;
  const Parameters& parameters;
  Collective& collective;
  const Llama* reference = nullptr;               // EvaluationInputs::reference
  std::map<std::string, std::string> notes = {};  // EvaluationInputs::notes
  PeakMemory memory = {};                         // EvaluationInputs::memory
};

struct ClosingResult {
  std::string path;           // report.json, or the model's directory
  std::string output_sha256;  // what it holds
};

// All ranks; the result is filled on rank 0. progress(done, total) counts groups of sequences.
ClosingResult RunEvaluate(const ClosingInputs& inputs,
                          const std::function<void(int64_t, int64_t)>& progress);
// Rank 0 alone, after RunEvaluate.
ClosingResult RunExport(const ClosingInputs& inputs);

}  // namespace tandem
