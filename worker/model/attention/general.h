// The general operator: every attention form of method.md §3 in ATen, on any device, in float32 or
// float64. Private to this folder.
//
// Rows go in blocks of C; a block meets the keys of its band by one batched product and everything
// before the band through the states S, z, cumulative sums over blocks (method.md §4). The G query
// heads of a group are folded into rows, so k and v are never repeated. Backward keeps the inputs
// alone and runs the forward again under autograd, piece by piece (sequences and groups), so that
// temporaries stay below a fixed budget. Exact sums in the input's type; on CUDA matrix products
// use TF32 if the process allows it. Confined to the calling thread; wrong shapes throw c10::Error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/model/attention/form.h"

namespace tandem::attention {

// Modes hybrid, window_only, linear_only, sinks_only; call.retained is not looked at. Autograd.
at::Tensor GeneralAttention(ComponentMode mode, const AttentionCall& call);

// Mode hybrid without autograd, with Z / D of every row.
HybridDiagnostics GeneralWithMass(const AttentionCall& call);

// Full causal softmax. Autograd.
at::Tensor GeneralSoftmax(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
// The same with its log-sum-exp, no autograd.
SoftmaxResult GeneralTeacher(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

// Checks q (B,H,T,d), k and v (B,K,T,d) with K dividing H: floating, alike in type and device.
void CheckGeneralHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);
// Checks maps, biases, gamma and the form against q and k, as far as `mode` reads them.
void CheckCall(ComponentMode mode, const AttentionCall& call);

// Sequences and KV groups that are worked on together: [batch_begin, batch_end) x [group_begin,
// group_end).
struct Piece {
  int64_t batch_begin, batch_end, group_begin, group_end;
};
// Elements of temporaries that may live at once on the device of `like`.
int64_t ElementBudget(const at::Tensor& like);
// Covers (B,K) so that a piece has at most the budget of `like`'s device, if one group has at most
// that; elements: temporaries of one sequence and group.
std::vector<Piece> SplitPieces(const at::Tensor& like, int64_t batch, int64_t groups,
                               int64_t elements);

// The fused kernels know one form of each mode: does the call fit?
bool FitsKernels(ComponentMode mode, const AttentionCall& call);
HybridOptions OptionsOf(const AttentionForm& form);
// A map per query head: a tied one repeated for the heads of its group.
at::Tensor PerHead(const at::Tensor& w, int64_t heads);

// What the fused kernels take: a CPU tensor whose d (and f, if not 0) are multiples of 8.
bool KernelsTake(const at::Tensor& q, int64_t map_dim);

}  // namespace tandem::attention
