// The form of a conversion's attention, and the one entry through which model code runs it.
//
// AttentionForm says which attention a conversion has (method.md §2, §3): feature map, window,
// linear span, mixing and the KV groups that stay softmax. Attend() runs any component mode of it,
// differentiable, on any device: on the CPU the fused kernels where they fit (hedgehog, sliding,
// shared), else and on accelerators the general operator in ATen. Both take O(T (w + sinks))
// memory; a retained head, a softmax, costs O(T^2) time.
//
// Threads: free of state; one training thread calls, ATen's pool works. Failure: wrong shapes,
// types or forms throw c10::Error that names the argument, its value and what is allowed. Not for
// decoding token by token: worker/model/recurrent.
//
// Shapes as in attention.h: B sequences, T tokens, H query heads, K key/value heads, G = H/K, d
// head dimension, f map width, F features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "worker/model/attention/attention.h"

namespace tandem {

// One spelling everywhere: softmax, hybrid, window_only, linear_only, sinks_only, none.
enum class ComponentMode { kSoftmax, kHybrid, kWindowOnly, kLinearOnly, kSinksOnly, kNone };

enum class FeatureMapKind { kHedgehog, kExp, kExpShifted, kRelu, kElu };
enum class WindowKind { kSliding, kTerraced };
// kShared: one denominator (method.md §3). kMass: the map decides the window's mass, softmax only
// its inside; for inference.
enum class Mixing { kShared, kMass };

// From the spec's words; an unknown word throws c10::Error with the allowed ones.
FeatureMapKind FeatureMapKindFromWord(const std::string& word);
WindowKind WindowKindFromWord(const std::string& word);
Mixing MixingFromWord(const std::string& word);

// The KV groups of one layer that stay full softmax, with their query heads; ascending.
using LayerRetention = std::vector<int64_t>;

struct AttentionForm {
  int64_t window = 64;  // softmax keys per query, its own included; terraced: the block
  int64_t sinks = 0;    // first tokens that always belong to the softmax set
  Span span = Span::kOutside;
  bool detach_max = false;  // parity only, a wrong gradient (method.md §3)
  FeatureMapKind map = FeatureMapKind::kHedgehog;
  bool two_sided = true;  // features of u and of -u, side by side
  WindowKind window_kind = WindowKind::kSliding;
  bool align_end = false;  // terraced: the last block ends with the sequence
  Mixing mixing = Mixing::kShared;
  bool affine = false;     // lambda = 1 - gamma instead of 1
  double window_gain = 1;  // multiplies gamma, at inference
  // Keys that leave the window and stay in each query head's softmax set (method.md §3, sparse
  // cache): inference only. worker/model/recurrent knows it, Attend does not.
  int64_t cache_size = 0;
  bool lolcats_defect = false;  // in T <= window tokens both branches have every causal key
  std::vector<LayerRetention> retained;  // by layer; empty: none anywhere

  const LayerRetention& RetainedIn(int64_t layer_index) const;
  // Features F that a map of width f gives.
  int64_t FeaturesOf(int64_t map_dim) const { return two_sided ? 2 * map_dim : map_dim; }
  // Tokens that terraced blocks count before the first of T.
  int64_t BlockPadding(int64_t num_tokens) const {
    return align_end ? (window - num_tokens % window) % window : 0;
  }
  // A row's output depends on how many tokens follow it.
  bool DependsOnLength() const { return align_end || lolcats_defect; }
  bool HasDefect(int64_t num_tokens) const { return lolcats_defect && num_tokens <= window; }
};

// One layer's attention. Maps and gamma may be undefined in modes that do not read them.
struct AttentionCall {
  at::Tensor q;         // (B,H,T,d) after RoPE
  at::Tensor k, v;      // (B,K,T,d)
  at::Tensor w_q, w_k;  // maps (H,d,f), or w_k (K,d,f) tied
  at::Tensor b_q, b_k;  // their biases, as FeatureMap takes them
  at::Tensor gamma;     // (H), activated
  AttentionForm form;
  LayerRetention retained;        // of this layer
  at::Tensor k_linear, v_linear;  // what the linear branch reads instead of k, v (state_swap)
  int64_t mode_sinks = 8;         // keys of mode sinks_only
  // Mode hybrid: the window gives nothing where the linear branch has keys, rows without such keys
  // keep their softmax (ssd.dropped_span: outside, method.md §6.3).
  bool window_off = false;
};

// (B,H,T,d); kNone gives an undefined tensor. Autograd for q, k, v, maps, biases and gamma.
// Retained heads are full causal softmax in every mode but sinks_only (and none).
at::Tensor Attend(ComponentMode mode, const AttentionCall& call);

// Mode hybrid without autograd, with the linear branch's share Z / D of every row; 0 for retained
// heads.
HybridDiagnostics AttendWithMass(const AttentionCall& call);

// The form's feature map (method.md §2) on any device: x (B,X,T,d), w (Y,d,f) with X dividing Y;
// bias (Y), a number per map, or (Y,f), or undefined. Returns (B,Y,T,F). Plain ATen, differentiable
// by autograd.
at::Tensor FeatureMap(const AttentionForm& form, const at::Tensor& x, const at::Tensor& w,
                      const at::Tensor& bias);

// sigmoid(theta) or exp(theta); `factor` is "sigmoid" or "exp".
at::Tensor ActivateWindowFactor(const at::Tensor& theta_H, const std::string& factor);

// A layer's objective in attention transfer (method.md §6.1): the sum of these terms, each with its
// weight. outputs and hybrid_outputs: 1000 mean (y - y*)^2 with the student in mode linear_only or
// hybrid. weights and hybrid_weights: the cross-entropy of the teacher's attention weights against
// the student's, in mode linear_only or hybrid (span outside). Means run over the converted heads.
struct TransferObjective {
  double weights = 0, outputs = 0, hybrid_outputs = 0, hybrid_weights = 0;
  bool TrainsFactor() const { return hybrid_outputs > 0 || hybrid_weights > 0; }
};
// One of the spec's words but mixture.
TransferObjective TransferObjectiveFromWord(const std::string& word);

struct TransferCall {
  AttentionCall attention;         // gamma is not read
  at::Tensor theta;                // (H)
  std::string factor = "sigmoid";  // ActivateWindowFactor
  SoftmaxResult teacher;           // CausalSoftmax(q, k, v)
  double grad_scale = 1;
};
// The loss and grad_scale times its gradients, shaped as the parameters; undefined where the
// objective does not train them. Retained heads get zeros; a layer of them alone has loss 0.
TransferResult TransferLayer(const TransferObjective& objective, const TransferCall& call);

}  // namespace tandem
