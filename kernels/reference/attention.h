// The specification of the attention operators: naive, in double precision, written to be checked
// by eye against method.md. Tests compare every production kernel with it; nothing else uses it.
//
// All arrays are contiguous std::vector<double>. Legend: B batch, H query heads, K key/value heads,
// T tokens, d head dimension, f map width, F features (2f, or f of one-sided maps). q, out
// (B,H,T,d); k, v (B,K,T,d); phi (B,H,T,F); w (H,d,f); gamma (H); lse (B,H,T). Functions are pure;
// sizes are trusted. Time and memory are O(T^2) on purpose.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem::reference {

using Array = std::vector<double>;

struct Sizes {
  int64_t batch = 1, heads = 1, kv_heads = 1, tokens = 1, dim = 8, map_dim = 8;
  int64_t features = 0;  // 0: 2 map_dim
  int64_t num_features() const { return features > 0 ? features : 2 * map_dim; }
};

// Sets of keys of a query i (method.md §3): softmax {i-w < j <= i}, or terraced {j/w >= i/w - 1, j
// <= i}, and {j <= i, j < sinks}; linear the rest of j <= i, or with span_all every j <= i.
// LoLCATs' masks read T: align_end counts blocks by (x + pad)/w, and lolcats has every j <= i in
// both sets where T <= w.
struct Options {
  int64_t window = 64, sinks = 0;
  bool span_all = false, detach_max = false;
  bool terraced = false;
  bool affine = false;      // lambda = 1 - gamma
  double gain = 1;          // multiplies gamma in e
  bool mass = false;        // mixing by mass instead of gamma; forward only
  bool window_off = false;  // e = 0 in rows whose linear set is not empty (method.md §6.3)
  bool align_end = false, lolcats = false;
  int64_t tokens = 0;  // T, for these two
};

bool InSoftmaxSet(const Options& options, int64_t i, int64_t j);
bool InLinearSet(const Options& options, int64_t i, int64_t j);

// method.md §2, kind hedgehog. x (B,X,T,d) with X = kv_heads dividing H.
Array FeatureMap(const Sizes& sizes, const Array& x, const Array& w);
struct FeatureMapGradient {
  Array d_x, d_w;
  Array d_bias = {};
};
FeatureMapGradient FeatureMapBackward(const Sizes& sizes, const Array& x, const Array& w,
                                      const Array& d_phi);

// Every kind of method.md §2, two-sided where sizes.features is 2f, else f. bias (H), a number per
// head, or (H,f), or empty.
enum class MapKind { kHedgehog, kExp, kExpShifted, kRelu, kElu };
Array FeatureMap(const Sizes& sizes, MapKind kind, const Array& x, const Array& w,
                 const Array& bias);
FeatureMapGradient FeatureMapBackward(const Sizes& sizes, MapKind kind, const Array& x,
                                      const Array& w, const Array& bias, const Array& d_phi);

struct HybridInput {
  Array q, k, v, phi_q, phi_k, gamma;
  Array v_linear;  // empty: v
};
struct HybridOutput {
  Array out, linear_mass;  // linear_mass (B,H,T) = Z / D
};
// method.md §3.
HybridOutput Hybrid(const Sizes& sizes, const Options& options, const HybridInput& in);
// Mode linear_only: all causal keys, denominator Z + 1e-12. Reads v, phi_q, phi_k.
Array LinearOnly(const Sizes& sizes, const HybridInput& in);
// Modes window_only and sinks_only (window 0): softmax over the softmax set.
Array SoftmaxOnly(const Sizes& sizes, const Options& options, const HybridInput& in);

struct HybridGradient {
  Array d_q, d_k, d_v, d_phi_q, d_phi_k, d_gamma;
};
// method.md §5.
HybridGradient HybridBackward(const Sizes& sizes, const Options& options, const HybridInput& in,
                              const Array& d_out);
HybridGradient LinearOnlyBackward(const Sizes& sizes, const HybridInput& in, const Array& d_out);

struct Teacher {
  Array out, lse;
};
Teacher CausalSoftmax(const Sizes& sizes, const Array& q, const Array& k, const Array& v);

struct WeightsLossResult {
  double loss = 0;
  Array d_phi_q, d_phi_k;
};
// method.md §6.1, objective weights: the mean over B, H, T, and its gradients. Reads q, k, phi_q,
// phi_k.
WeightsLossResult WeightsLoss(const Sizes& sizes, const HybridInput& in, const Array& lse);

// Objective hybrid_weights, span outside: the mean over B, H, T of -sum_{W} p* ln e - sum_{O} p*
// ln(x + 1e-12) + ln D.
double HybridWeightsLoss(const Sizes& sizes, const Options& options, const HybridInput& in,
                         const Array& lse);

}  // namespace tandem::reference
