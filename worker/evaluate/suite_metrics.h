// Suite metrics: from the log-probabilities of a suite's requests to its score. Pure arithmetic,
// no torch; any thread.
//
// The conventions are lm-evaluation-harness 0.4's, so that numbers can be compared:
//   acc         argmax over the choices of log p(continuation | context); the first of equals
//   acc_norm    the same of log p divided by the characters of the choice
//   lambada     share of items whose continuation is the greedy one; perplexity exp(-mean log p)
//   exact       share of items whose continuation is the greedy one
//   perplexity  exp(-sum log p / words) over the documents' rolling windows; per byte, and bits
// A suite with groups (MMLU's subjects) is the mean of its groups' means. Standard errors: of the
// mean over items, sample variance over n; over groups, of the mean of independent groups; of a
// perplexity by the first-order rule. A score that is not finite makes the value NaN: what cannot
// be measured is never called right.
#pragma once

#include <string>
#include <vector>

#include "worker/evaluate/suite_file.h"

namespace tandem {

// What a request's continuation got.
struct ContinuationScore {
  double log_probability = 0;
  bool is_greedy = false;
};

struct NamedValue {
  std::string name;
  double value = 0;
};

struct SuiteScore {
  double value = 0;  // by the suite's metric: a share in [0, 1], or the word perplexity
  double standard_error = 0;
  // acc and acc_norm; or acc and perplexity; or byte_perplexity and bits_per_byte.
  std::vector<NamedValue> also;
};

// scores: the suite's requests in order of items, each item's in order.
SuiteScore ScoreSuite(const Suite& suite, const std::vector<ContinuationScore>& scores);

}  // namespace tandem
