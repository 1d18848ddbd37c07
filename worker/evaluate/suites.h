// Suites: common-sense choices, last words and rolling perplexity, in every mode asked for.
//
// They are shown beside the verdict and never decide it: prompts are short, most of their rows lie
// inside the window, and linear_active says how blind each suite is. Collective like evaluate.h.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/evaluate/cost_model.h"
#include "worker/evaluate/request_scores.h"
#include "worker/evaluate/suite_metrics.h"

namespace tandem {

struct SuiteFigures {
  std::string name, metric;
  int64_t items = 0;
  double linear_active = 0;                  // share of scored rows whose linear branch has keys
  std::map<std::string, SuiteScore> scores;  // by mode
};

// The requests of a suite; their spans are its choices, item by item. A choice of one token after
// the context of the choice before it, itself of one token (MMLU's letters), is one more span of
// that one's request, so that the context is read once.
std::unique_ptr<RequestBatches> BatchesOf(const Suite& suite, const TokenShard& shard);

class SuiteMeasurement {
 public:
  // modes: component modes' names; each must be known (the plan's were checked).
  SuiteMeasurement(const SuiteFile& file, const Plan& plan);

  int64_t GroupsOf(int64_t rank, int64_t ranks) const;
  void AddWork(CostShape shape, ForwardWork* work) const;
  std::vector<SuiteFigures> Measure(const EvaluatedModel& model, Collective& collective,
                                    const GroupDone& done) const;

 private:
  double LinearActive(const Suite& suite) const;

  const SuiteFile& file_;
  const Plan& plan_;
  std::vector<std::unique_ptr<RequestBatches>> batches_;  // one per suite
};

// Means over the suites that are shares (acc, acc_norm), by mode: Avg6 and its like (method.md §8);
// without_mmlu leaves the suite of that name out. Empty when there are none.
std::map<std::string, double> SuitesAverage(const std::vector<SuiteFigures>& suites,
                                            bool without_mmlu);

}  // namespace tandem
