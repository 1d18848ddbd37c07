// The loss of each component on a few validation sequences, between steps of a stage.
//
// The sequences, and the targets that count, are the evaluation's (worker/evaluate/passes.h):
// evenly spread over the text, labels alone where there is a mask, the same each time and for any
// number of ranks. All ranks get the same losses. A collective call. Training thread only.
#pragma once

#include <memory>

#include "worker/comm/collective.h"
#include "worker/data/token_shards.h"
#include "worker/evaluate/passes.h"
#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/plan/plan.h"
#include "worker/rank/early_stop.h"

namespace tandem {

// The validation text of a stage's early stop: stage.stop_sequences of it, or all where there are
// fewer.
class WatchedText {
 public:
  // Without a sequence: an error that says what to do.
  static Result<std::unique_ptr<WatchedText>> Open(const Plan& plan, const StagePlan& stage);
  const TextSequences& sequences() const { return sequences_; }

 private:
  WatchedText(std::unique_ptr<TokenShard> text, std::unique_ptr<TokenShard> label_mask, int64_t T,
              int64_t most_sequences);

  std::unique_ptr<TokenShard> text_, label_mask_;
  TextSequences sequences_;
};

ComponentLosses MeasureComponents(const Plan& plan, const Llama& model,
                                  const Parameters& parameters, const WatchedText& text,
                                  Collective& collective);

}  // namespace tandem
