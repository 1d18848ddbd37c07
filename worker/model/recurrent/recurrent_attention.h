// RecurrentAttention: one layer's attention as a recurrence over tokens (method.md §4, decode
// cache).
//
// It exists so that a converted model runs in constant memory: tokens come in parts of any length,
// and what a later row needs of them stays in a LayerMemory. A part's rows are computed in blocks;
// a row's output is the same, to rounding, whether its token came alone, in a part or with the
// whole sequence, for every window kind, span, number of sinks and component mode. Retained
// key/value groups, and all groups in mode softmax, are full causal softmax over a memory that
// grows.
//
// Forward only, float32, any device. Immutable after construction: any thread; a LayerMemory is
// confined to one. Wrong shapes and what has no recurrent form throw c10::Error by name.
//
// Shapes: B sequences, T new tokens, H query heads, K key/value heads, G = H/K, d head dimension.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/model/attention/form.h"
#include "worker/model/recurrent/layer_memory.h"
#include "worker/model/recurrent/sparse_cache.h"
#include "worker/model/recurrent/window_geometry.h"

namespace tandem {

struct RecurrentOptions {
  AttentionForm form;
  // softmax, hybrid, window_only or linear_only. Only hybrid reads form.cache_size, which needs
  // span outside and mixing kind shared.
  ComponentMode mode = ComponentMode::kHybrid;
  // With a sparse cache: each sequence reads the sums of the next one in the batch (state_swap).
  bool swap_sums = false;
};

// One layer's maps, of all its heads; undefined where the mode does not read them.
struct RecurrentMaps {
  at::Tensor w_q, w_k;  // (H,d,f), or w_k (K,d,f) tied
  at::Tensor b_q, b_k;  // their biases, as FeatureMap takes them
  at::Tensor gamma_H;   // activated
};

class RecurrentAttention {
 public:
  // retained: the key/value groups that stay softmax.
  RecurrentAttention(const RecurrentOptions& options, const RecurrentMaps& maps,
                     const LayerRetention& retained, int64_t num_heads, int64_t num_kv_heads);

  // q (B,H,T,d), k, v (B,K,T,d) after RoPE: the tokens after those that `memory` has seen, which
  // moves on. Returns (B,H,T,d), in memory (B,T,H,d).
  // linear_mass_BHT, where defined: (B,H,T) to fill with the linear branch's share of each row,
  // mode hybrid with kind shared; 0 for softmax heads.
  at::Tensor Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    LayerMemory* memory, const at::Tensor& linear_mass_BHT = {}) const;

 private:
  // r rows, of all heads or of the converted ones: q (B,H',r,d), k, v (B,K',r,d).
  struct Block {
    at::Tensor q, k, v;
  };
  // Sums over each row's keys: of weights times values (B,H',r,d), and of weights (B,H',r).
  struct Sums {
    at::Tensor number, total;
  };

  // Keys of the block that some of its rows see by features: phi_k (B,P,m,F), v (B,K',m,d), hidden
  // (r,m) or (B,H',r,m) where a row does not. All undefined: none.
  struct Beside {
    at::Tensor phi_k, v, hidden_rm;
  };

  // share: (B,H,r) or (B,H',r), filled where defined.
  at::Tensor AttendBlock(const Block& block, LayerMemory* memory, const at::Tensor& share) const;
  at::Tensor AttendConverted(const Block& block, LayerMemory* memory,
                             const at::Tensor& share) const;
  at::Tensor Mix(Sums window, Sums linear, const at::Tensor& all_mass,
                 const at::Tensor& share) const;
  Sums ReadSums(const at::Tensor& phi_q, const Beside& beside, const LayerMemory& memory) const;
  void Remember(const Block& block, LayerMemory* memory) const;
  void StartSums(const Block& block, LayerMemory* memory) const;
  // turnover: of the block's rows, with a sparse cache.
  Sums WindowSums(const Block& block, const LayerMemory& memory,
                  const CacheTurnover* turnover) const;
  Sums FoldBlock(const Block& block, const at::Tensor& phi_q, LayerMemory* memory) const;
  Sums FoldLeaving(const Block& block, const at::Tensor& phi_q, LayerMemory* memory) const;
  Beside DefectKeys(int64_t rows, const LayerMemory& memory) const;
  // The sparse cache's part: what the block's rows see of it, and the sums with what it gave up.
  CacheTurnover TurnOverIn(const Block& block, const LayerMemory& memory) const;
  Sums FoldTurnover(const at::Tensor& phi_q, CacheTurnover turnover, LayerMemory* memory) const;
  at::Tensor MassOfAll(const Block& block, const at::Tensor& phi_q, LayerMemory* memory) const;
  void Forget(int64_t rows, LayerMemory* memory) const;

  at::Tensor PhiQ(const at::Tensor& q_BHrd) const;  // (B,H',r,F)
  at::Tensor PhiK(const at::Tensor& k_BKmd) const;  // (B,P,m,F), P heads of the k maps

  RecurrentOptions options_;
  WindowGeometry window_;
  RecurrentMaps maps_;                        // of the converted heads; gamma with its gain
  at::Tensor lambda_H_;                       // undefined: 1
  std::vector<int64_t> converted_, softmax_;  // key/value groups
  int64_t group_size_ = 1;                    // G
  bool has_window_ = false, has_linear_ = false;
  bool folds_at_once_ = false;  // a key is in the sums from its own row on
  bool caches_ = false;
};

}  // namespace tandem
