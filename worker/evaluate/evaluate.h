// Evaluation: the figures of every component on held-out text, the verdict, and what stands beside
// it: recall, suites, controls, other lengths, cost. A collective stage: all ranks call it.
//
// Sequences and requests are read in fixed groups (passes.h); a group's figures do not depend on
// which rank made them, and all are gathered in order: the report is the same for any number of
// ranks. Every mode reads the same tokens, so that differences are paired. Memory O(T). Confined to
// the calling thread; uses ATen's threads. Errors: validation data shorter than two sequences and
// unreadable files are a Status, on all ranks alike; a control that cannot be paired is words in
// the report; a lost peer throws (collective.h). The format of report.json: README.md beside this.
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
#include "worker/evaluate/beats_window.h"
#include "worker/evaluate/cost.h"
#include "worker/evaluate/cost_model.h"
#include "worker/evaluate/long_range.h"
#include "worker/evaluate/peak_memory.h"
#include "worker/evaluate/suites.h"
#include "worker/evaluate/verdict.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"

namespace tandem {

struct ComponentFigures {
  double loss = 0;            // nats per token: mean over the targets of all sequences
  double perplexity = 0;      // exp(loss)
  double standard_error = 0;  // of the loss, sequences being what is drawn (token_mean.h)
};

// A row at another length than the training's; never part of the verdict (method.md §8, Length).
struct LengthFigures {
  int64_t length = 0;
  int64_t sequences = 0;                 // 0: the validation text holds no such sequence
  std::map<std::string, double> losses;  // softmax, hybrid, window_only, linear_only
};

struct Evaluation {
  Verdict verdict;
  std::map<std::string, ComponentFigures> components;  // by mode
  double linear_delta_low = 0, linear_delta_high = 0;
  BeatsWindow beats_window;
  LongRangeFigures long_range;
  std::vector<SuiteFigures> suites;
  std::string bos;  // of the suites: none, model
  std::vector<LengthFigures> lengths;
  int64_t sequences = 0;
  int64_t sequence_length = 0;
  PairedLosses losses;  // per sequence, for controls and comparisons
  // [layer][head]: mean Z/D over rows i >= 2w; empty where T <= 2w.
  std::vector<std::vector<double>> linear_mass;
  double linear_active = 0;  // share of scored rows whose linear branch has keys
  Cost cost;
  double device_bytes = 0;  // PeakDeviceBytes, the largest of the ranks; 0 on the CPU
  double seconds = 0;
  // Further keys of the report, as JSON: what training has to say.
  std::map<std::string, std::string> notes;
};

struct EvaluationInputs {
  const Plan& plan;
  const Llama& model;
  const Parameters& parameters;
  const TokenShard& validation;
  // The model of mode softmax and of the training-free window; nullptr: `model`.
  const Llama* reference = nullptr;
  std::map<std::string, std::string> notes = {};  // Evaluation::notes
  PeakMemory memory = {};                         // whose stage began with this one
};

// Every forward pass that Evaluate will make, all ranks together; reads the files that it reads.
Result<ForwardWork> PlannedWork(const EvaluationInputs& inputs);

// Called on every rank between groups of sequences; counts of this rank. May throw to leave the
// stage.
using EvaluationProgress = std::function<void(int64_t done, int64_t total)>;

// Reads passkey.json, long_range.json, suites.json and validation.mask from the plan's tokens
// (absent: not measured) and the plan's control.
Result<Evaluation> Evaluate(const EvaluationInputs& inputs, Collective& collective,
                            const EvaluationProgress& progress);

// The text of report.json (version 1); numbers that are not finite or not defined become null.
std::string EvaluationToJson(const Plan& plan, const Evaluation& evaluation);
// <job>/artifacts/report.json, durably; returns its path. Rank 0 alone.
Result<std::string> WriteEvaluation(const Plan& plan, const Evaluation& evaluation);

}  // namespace tandem
