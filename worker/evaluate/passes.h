// Passes: forward passes of the whole model over sequences, split over ranks so that no figure
// depends on how many ranks there are.
//
// Work is cut into groups that go through the model together. The groups are a function of the
// sequences alone, a rank takes some of them whole, and what they gave is gathered in order. Two
// kinds: text of one length (losses per sequence), and requests of any length (the log-probability
// of spans, for suites and recall). Confined to the calling thread; collective: all ranks make the
// same calls. Memory O(tokens of a group).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/comm/collective.h"
#include "worker/data/token_shards.h"
#include "worker/model/evaluation_forward.h"
#include "worker/plan/plan.h"

namespace tandem {

// What goes through the model together: as much as has about so many tokens, and at most so many
// sequences or requests. The estimate of memory (worker/rank/cost_estimate.cc) counts with it, too.
inline constexpr int64_t kGroupTokens = 2048;
inline constexpr int64_t kGroupSequences = 64;

// What a pass runs. `reference` is the model of mode softmax and of the training-free window; it
// differs from `model` only where a finished conversion is diagnosed against another base.
struct EvaluatedModel {
  const Llama& model;
  const Parameters& parameters;
  const Llama& reference;
};

// Called after each group; may throw to leave the stage.
using GroupDone = std::function<void()>;

// The options of every mode: the conversion's form out of the plan. Mode hybrid.
EvaluationOptions OptionsOf(const Plan& plan);
// Mode window_only of the base as it is: no LoRA, 4 sinks, no retained heads (method.md §8, control
// without training).
EvaluationOptions TrainingFreeOptions(const Plan& plan);
inline constexpr int64_t kTrainingFreeSinks = 4;

// The first row whose linear branch has keys under this plan, in a sequence of so many tokens; 0
// with span `all` (method.md §3).
int64_t FirstLinearRow(const AttentionPlan& attention, int64_t num_tokens);

// One forward pass; the reference where the options ask for the base. ids on the host.
EvaluationResult RunPass(const EvaluatedModel& model, const at::Tensor& ids_BT,
                         const EvaluationOptions& options);

// N sequences of T tokens, evenly spread over the chunks of a text. With a mask, only targets whose
// mask is 1 are scored, and chunks without any are not read.
class TextSequences {
 public:
  TextSequences(const TokenShard& text, const TokenShard* label_mask, int64_t T,
                int64_t most_sequences);

  int64_t T() const { return T_; }
  int64_t num_chunks() const { return num_chunks_; }  // that could be read
  int64_t size() const { return size_; }              // N
  int64_t group_size() const { return group_size_; }
  int64_t num_groups() const { return (size_ + group_size_ - 1) / group_size_; }
  void Read(int64_t sequence, int64_t* ids) const;
  // Where documents begin within the sequence, without its own beginning.
  std::vector<int64_t> DocumentStarts(int64_t sequence) const;
  // The number of scored targets of each sequence.
  std::vector<double> Targets() const;
  // T - 1 numbers, 1 where target t + 1 of row t is scored.
  void ReadScored(int64_t sequence, double* scored) const;

 private:
  int64_t ChunkOf(int64_t sequence) const;

  const TokenShard& text_;
  const TokenShard* label_mask_;
  std::vector<int64_t> labelled_;  // with a mask: the chunks that have labels
  int64_t T_, num_chunks_ = 0, size_ = 0, group_size_ = 1;
};

struct TextFigures {
  std::vector<double> losses;  // per sequence: mean over its scored targets
  // With options.linear_mass: [layer][head], mean over sequences and rows; empty otherwise.
  std::vector<std::vector<double>> linear_mass;
};
TextFigures MeasureText(const EvaluatedModel& model, const TextSequences& text,
                        const EvaluationOptions& options, Collective& collective,
                        const GroupDone& done);

// Groups of this rank: contiguous, in order of rank.
struct GroupRange {
  int64_t first = 0, last = 0;
  int64_t size() const { return last - first; }
};
GroupRange GroupsOfRank(int64_t count, int64_t rank, int64_t ranks);

}  // namespace tandem
