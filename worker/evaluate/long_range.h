// Long range: does the model find what stood far back? Pass keys and needles by distance, facts
// queried in random order by their number, key-value retrieval by pairs.
//
// Teacher-forced: an answer is right when each of its tokens is the argmax of the logits one
// position before. Prompts come from <tokens>/passkey.json (token_shards.h) and
//   <tokens>/long_range.json  {"version": 1, "prompts": [{"kind": "needle" | "recall" |
//     "key_value", "ids": [...], "length": their number, "facts" | "pairs": n,
//     "depth": where the needle lies, 0 ... 1,
//     "answers": [{"start", "length", "distance": tokens between fact and question}]}]}
// Every prompt counts in its row of the report; every answer beyond what stacked windows see,
// M (w - 1) tokens, counts in `recall`, the share of the base's: only that proves the linear branch
// (method.md §8). Collective like evaluate.h.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/evaluate/cost_model.h"
#include "worker/evaluate/request_scores.h"

namespace tandem {

struct LongRangeAnswer {
  int64_t start = 0, length = 0, distance = 0;
};

struct LongRangePrompt {
  std::string kind;    // passkey, needle, recall, key_value
  int64_t amount = 0;  // recall: facts; key_value: pairs; otherwise the distance
  std::vector<int64_t> ids;
  std::vector<LongRangeAnswer> answers;  // not empty
};

// passkey.json's prompts, then long_range.json's, as the plan asks. A file that is not there has
// none.
Result<std::vector<LongRangePrompt>> ReadLongRange(const Plan& plan, int64_t vocab_size);

// Prompts of one kind and amount; `length` is the longest's.
struct LongRangeRow {
  std::string kind;
  int64_t amount = 0;
  int64_t length = 0;
  int64_t prompts = 0, answers = 0;
  std::map<std::string, double> accuracy;  // by mode: softmax, hybrid, window_only, linear_only
};

// Accuracy of answers further back than the windows reach, as a share of the base's.
struct Recall {
  std::optional<double> value;
  std::string words;
};

struct LongRangeFigures {
  std::vector<LongRangeRow> rows;  // kinds in order of appearance, by amount
  Recall recall;
};

class LongRangeMeasurement {
 public:
  LongRangeMeasurement(const std::vector<LongRangePrompt>& prompts, const Plan& plan,
                       int64_t num_layers);

  int64_t GroupsOf(int64_t rank, int64_t ranks) const;
  void AddWork(CostShape shape, ForwardWork* work) const;
  LongRangeFigures Measure(const EvaluatedModel& model, Collective& collective,
                           const GroupDone& done) const;

 private:
  const std::vector<LongRangePrompt>& prompts_;
  const Plan& plan_;
  int64_t reach_;
  RequestBatches batches_;
};

// Tokens that M stacked windows see back: M (w - 1); a terraced window reads up to 2w keys.
int64_t WindowReach(const AttentionPlan& attention, int64_t num_layers);

}  // namespace tandem
