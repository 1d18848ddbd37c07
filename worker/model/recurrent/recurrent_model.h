// RecurrentModel: a converted model that reads and writes token by token, in constant memory; and
// the base model with its growing key/value cache, to compare with.
//
// It exists for generation: prompts are read in parts, then tokens follow one at a time, and both
// give the logits of evaluation_forward.h to rounding. Holds references: the model and the
// parameters outlive it. Immutable: any thread; a RecurrentState is confined to one. Wrong shapes
// throw c10::Error. Not for training or whole-text evaluation: evaluation_forward.h is faster
// there.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/model/llama.h"
#include "worker/model/parameters.h"
#include "worker/model/recurrent/recurrent_attention.h"

namespace tandem {

// What the model remembers of B sequences of the same length.
struct RecurrentState {
  std::vector<LayerMemory> layers;
  int64_t position = 0;  // tokens seen
  int64_t bytes() const;
};

class RecurrentModel {
 public:
  // parameters: not read in mode softmax, where null is fine.
  RecurrentModel(const Llama& model, const Parameters* parameters, const RecurrentOptions& options);

  RecurrentState Start() const;
  // Reads ids int64 (B,T), T >= 1, the next tokens of each sequence, in parts that bound memory.
  // Returns the logits of the last token (B,1,V), or of all (B,T,V).
  at::Tensor Advance(const at::Tensor& ids_BT, bool all_logits, RecurrentState* state) const;

 private:
  at::Tensor AdvancePart(const at::Tensor& ids_BT, RecurrentState* state) const;

  const Llama& model_;
  const Parameters* parameters_;
  std::vector<RecurrentAttention> layers_;
};

}  // namespace tandem
