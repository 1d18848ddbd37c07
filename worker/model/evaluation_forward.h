// The forward pass of evaluation: per-token losses in every component mode, no gradients.
//
// One function runs the whole model in one mode (method.md §3, §8). Logits are made in chunks of
// rows and never kept, so memory is O(B T). Runs where the model is; ids and results lie on the
// host. Free of state; uses ATen's intra-op threads. Wrong
// shapes throw c10::Error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/model/attention/form.h"
#include "worker/model/llama.h"
#include "worker/model/next_token_loss.h"
#include "worker/model/parameters.h"

namespace tandem {

const char* ComponentModeName(ComponentMode mode);
Result<ComponentMode> ComponentModeFromName(const std::string& name);

struct EvaluationOptions {
  ComponentMode mode = ComponentMode::kHybrid;
  AttentionForm attention;     // of the conversion
  int64_t evaluate_sinks = 8;  // keys of mode sinks_only
  // Mode hybrid only: the linear branch of sequence b reads k and v of sequence (b+1) mod B, same
  // layer and positions, of the same pass. Needs B >= 2.
  bool state_swap = false;
  // Mode hybrid only: fill linear_mass_MH, over rows i >= mass_from_row.
  bool linear_mass = false;
  int64_t mass_from_row = 0;
  bool predictions = false;         // fill predicted_BT
  std::vector<OtherTarget> others;  // fill other_losses
  // The base as it is in any mode: no LoRA. Maps and factors are still read where a mode has them.
  bool base_weights = false;
};

struct EvaluationResult {
  // (B, T-1) fp32: entry i is the cross-entropy, in nats, of token i+1 given tokens 0 ... i.
  at::Tensor losses;
  at::Tensor other_losses;  // fp32, one per options.others
  // (B, T) int64: argmax of the logits at position i, that is the guess for token i+1.
  at::Tensor predicted_BT;
  // (M, H) float64: mean of Z_i/D_i over the sequences and rows i >= mass_from_row; NaN when there
  // is no such row. One mean per sequence would need B: call with B = 1 for that.
  at::Tensor linear_mass_MH;
};

// Mode softmax is the base: `parameters` are not read, LoRA is off. All other modes use LoRA, maps
// and factors. ids int64 (B,T), T >= 2.
EvaluationResult EvaluateSequences(const Llama& model, const Parameters& parameters,
                                   const at::Tensor& ids_BT, const EvaluationOptions& options);

// All logits (B,T,V), for small checks only: memory B T V floats.
at::Tensor EvaluateLogits(const Llama& model, const Parameters& parameters,
                          const at::Tensor& ids_BT, const EvaluationOptions& options);

}  // namespace tandem
