// Evaluation: the figures of every component on held-out text, and the verdict. A collective stage:
// all ranks call it.
//
// Sequences are read in fixed groups, evenly spread over the validation chunks; a group's figures
// do not depend on which rank made them, and all are gathered in order: the report is the same for
// any number of ranks. Every mode reads the same tokens, so that differences are paired. Memory
// O(T). Confined to the calling thread; uses ATen's threads. Errors: validation data shorter than
// two sequences and unreadable files are a Status, on all ranks alike; a lost peer throws
// (collective.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/comm/collective.h"
#include "worker/data/token_shards.h"
#include "worker/evaluate/verdict.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"

namespace tandem {

struct ComponentFigures {
  double loss = 0;        // nats per token: mean over sequences of the mean over their T-1 targets
  double perplexity = 0;  // exp(loss)
  double standard_error = 0;  // of the loss, over sequences
};

struct PasskeyFigures {
  int64_t distance = 0;
  int64_t prompts = 0;
  std::map<std::string, double> accuracy;  // softmax, hybrid, window_only, linear_only
};

struct Evaluation {
  Verdict verdict;
  std::map<std::string, ComponentFigures> components;  // by mode
  double linear_delta_low = 0, linear_delta_high = 0;
  std::vector<PasskeyFigures> passkey;  // by ascending distance
  int64_t sequences = 0;
  int64_t sequence_length = 0;
  // [layer][head]: mean Z/D over rows i >= 2w; empty where T <= 2w.
  std::vector<std::vector<double>> linear_mass;
  double linear_active = 0;  // share of scored rows whose linear branch has keys
  double seconds = 0;
};

struct EvaluationInputs {
  const Plan& plan;
  const Llama& model;
  const Parameters& parameters;
  const TokenShard& validation;
  std::vector<PasskeyPrompt> passkey;  // empty: none
};

// Called on every rank between groups of sequences; counts of this rank. May throw to leave the
// stage.
using EvaluationProgress = std::function<void(int64_t done, int64_t total)>;

Result<Evaluation> Evaluate(const EvaluationInputs& inputs, Collective& collective,
                            const EvaluationProgress& progress);

// 95 % interval of the mean of paired differences: percentiles of `draws` resamplings of the
// sequences by Philox (method.md §8). differences is not empty; draws >= 1.
struct Interval {
  double low = 0, high = 0;
};
Interval BootstrapInterval(const std::vector<double>& differences, int64_t draws, uint64_t seed);

// The text of report.json (version 1); numbers that are not finite or not defined become null.
std::string EvaluationToJson(const Plan& plan, const Evaluation& evaluation);
// <job>/artifacts/report.json, durably; returns its path. Rank 0 alone.
Result<std::string> WriteEvaluation(const Plan& plan, const Evaluation& evaluation);

}  // namespace tandem
