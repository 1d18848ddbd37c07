#include "worker/model/recurrent/recurrent_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "worker/model/recurrent/key_masks.h"

namespace tandem {
namespace {

constexpr int64_t kBlockRows = 128;
constexpr int64_t kCacheScores = int64_t{1} << 20;  // of a block and head: bounds its memory
constexpr double kLinearEpsilon = 1e-12;            // method.md §3, linear_only

void CheckOptions(const RecurrentOptions& options) {
  const AttentionForm& form = options.form;
  const bool has_form =
      options.mode != ComponentMode::kSinksOnly && options.mode != ComponentMode::kNone;
  TORCH_CHECK(has_form,
              "modes sinks_only and none have no recurrent form; use softmax, hybrid, window_only "
              "or linear_only");
  TORCH_CHECK(form.window >= 1, "window is ", form.window, "; must be at least 1");
  TORCH_CHECK(form.cache_size >= 0, "cache_size is ", form.cache_size, "; must be at least 0");
  const bool outside = form.span == Span::kOutside;
  TORCH_CHECK(form.mixing == Mixing::kShared || outside,
              "mixing kind mass needs linear span outside");
  TORCH_CHECK(form.cache_size == 0 || (outside && form.mixing == Mixing::kShared),
              "a sparse cache needs linear span outside and mixing kind shared");
  TORCH_CHECK(!options.swap_sums || form.cache_size > 0,
              "swap_sums belongs to a sparse cache: without one, Attend swaps the sequences");
}

// Undefined stays undefined.
at::Tensor MapsOf(const at::Tensor& x, const std::vector<int64_t>& groups, int64_t kv_heads) {
  return x.defined() ? OfGroups(x.unsqueeze(0), groups, x.size(0) / kv_heads).squeeze(0) : x;
}

void AddToSums(const at::Tensor& phi_k, const at::Tensor& v, LayerMemory* memory) {
  const int64_t P = phi_k.size(1);
  memory->S.add_(at::matmul(phi_k.transpose(2, 3), PerHead(v, P)));
  memory->z.add_(phi_k.sum(2));
}

}  // namespace

RecurrentAttention::RecurrentAttention(const RecurrentOptions& options, const RecurrentMaps& maps,
                                       const LayerRetention& retained, int64_t num_heads,
                                       int64_t num_kv_heads)
    : options_(options), group_size_(num_heads / num_kv_heads) {
  CheckOptions(options);
  const c10::NoGradGuard no_grad;
  const ComponentMode mode = options.mode;
  const AttentionForm& form = options.form;
  window_ = {form.window_kind == WindowKind::kTerraced, form.window, form.align_end};
  has_window_ = mode == ComponentMode::kHybrid || mode == ComponentMode::kWindowOnly;
  has_linear_ = mode == ComponentMode::kHybrid || mode == ComponentMode::kLinearOnly;
  folds_at_once_ = mode == ComponentMode::kLinearOnly || form.span == Span::kAll;
  caches_ = mode == ComponentMode::kHybrid && options.form.cache_size > 0;
  for (int64_t group = 0; group < num_kv_heads; ++group) {
    const bool full = mode == ComponentMode::kSoftmax ||
                      std::find(retained.begin(), retained.end(), group) != retained.end();
    (full ? softmax_ : converted_).push_back(group);
  }
  if (!has_linear_ || converted_.empty()) return;
  const auto of_converted = [&](const at::Tensor& x) {
    return MapsOf(x, converted_, num_kv_heads);
  };
  maps_ = {of_converted(maps.w_q),
           of_converted(maps.w_k),
           of_converted(maps.b_q),
           of_converted(maps.b_k),
           {}};
  // Heads of a group with one k map share their sums, unless each caches keys of its own.
  if (caches_) {
    const int64_t H = maps_.w_q.size(0);
    maps_.w_k = PerHead(maps_.w_k.unsqueeze(0), H).squeeze(0);
    if (maps_.b_k.defined()) {
      const at::Tensor rows = maps_.b_k.view({1, maps_.b_k.size(0), 1, -1});
      maps_.b_k = PerHead(rows, H).reshape({H, -1});
    }
  }
  if (!has_window_) return;
  const at::Tensor gamma = of_converted(maps.gamma_H);
  maps_.gamma_H = gamma.mul(form.window_gain);
  if (form.affine) lambda_H_ = gamma.neg().add_(1);
}

at::Tensor RecurrentAttention::Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      LayerMemory* memory,
                                      const at::Tensor& linear_mass_BHT) const {
  const c10::NoGradGuard no_grad;
  const int64_t T = q.size(2);
  TORCH_CHECK(T >= 1 && k.size(2) == T && v.size(2) == T, "q has ", T, " tokens, k ", k.size(2),
              " and v ", v.size(2), "; all must be one number above 0");
  if (memory->position == 0) memory->prompt = std::max(memory->prompt, T);
  const int64_t step =
      caches_ ? std::clamp<int64_t>(kCacheScores / options_.form.cache_size, 1, kBlockRows)
              : kBlockRows;
  const at::Tensor out =
      at::empty({q.size(0), T, q.size(1), q.size(3)}, q.options()).transpose(1, 2);
  for (int64_t begin = 0; begin < T; begin += step) {
    const int64_t rows = std::min(step, T - begin);
    const Block block{q.narrow(2, begin, rows), k.narrow(2, begin, rows), v.narrow(2, begin, rows)};
    const at::Tensor share =
        linear_mass_BHT.defined() ? linear_mass_BHT.narrow(2, begin, rows) : at::Tensor();
    out.narrow(2, begin, rows).copy_(AttendBlock(block, memory, share));
    memory->position += rows;
  }
  return out;
}

at::Tensor RecurrentAttention::AttendBlock(const Block& block, LayerMemory* memory,
                                           const at::Tensor& share) const {
  if (softmax_.empty()) return AttendConverted(block, memory, share);
  const auto part = [&](const std::vector<int64_t>& groups) {
    return Block{OfGroups(block.q, groups, group_size_), OfGroups(block.k, groups, 1),
                 OfGroups(block.v, groups, 1)};
  };
  const Block full = part(softmax_);
  AppendToFull(full.k, full.v, memory);
  const at::Tensor y = AttendFull(full.q, *memory);
  if (share.defined()) share.zero_();
  if (converted_.empty()) return y;
  const at::Tensor part_share =
      share.defined() ? OfGroups(share, converted_, group_size_).clone() : share;
  const at::Tensor converted = AttendConverted(part(converted_), memory, part_share);
  if (share.defined()) {
    const at::Tensor none = OfGroups(share, softmax_, group_size_);
    share.copy_(JoinGroups({softmax_, none}, {converted_, part_share}, group_size_));
  }
  return JoinGroups({softmax_, y}, {converted_, converted}, group_size_);
}

at::Tensor RecurrentAttention::AttendConverted(const Block& block, LayerMemory* memory,
                                               const at::Tensor& share) const {
  if (has_window_) Remember(block, memory);
  if (has_linear_ && !memory->S.defined()) StartSums(block, memory);
  Sums window, linear;
  std::optional<CacheTurnover> turnover;
  if (caches_) turnover = TurnOverIn(block, *memory);
  if (has_window_) window = WindowSums(block, *memory, turnover ? &*turnover : nullptr);
  at::Tensor all_mass;
  if (has_linear_) {
    const at::Tensor phi_q = PhiQ(block.q);
    if (memory->z_all.defined()) all_mass = MassOfAll(block, phi_q, memory);
    if (turnover) {
      linear = FoldTurnover(phi_q, std::move(*turnover), memory);
    } else {
      linear = folds_at_once_ ? FoldBlock(block, phi_q, memory) : FoldLeaving(block, phi_q, memory);
    }
  }
  if (has_window_) Forget(block.q.size(2), memory);
  return Mix(std::move(window), std::move(linear), all_mass, share);
}

// method.md §3: hybrid with its shared denominator or by mass, window_only, linear_only.
at::Tensor RecurrentAttention::Mix(Sums window, Sums linear, const at::Tensor& all_mass,
                                   const at::Tensor& share) const {
  if (!has_linear_) return window.number.div(window.total.unsqueeze(-1));
  if (!has_window_) return linear.number.div(linear.total.add(kLinearEpsilon).unsqueeze(-1));
  if (all_mass.defined()) {
    const at::Tensor rho = linear.total.div(all_mass).neg().add(1);
    return window.number.mul(rho.div(window.total).unsqueeze(-1))
        .add(linear.number.div(all_mass.unsqueeze(-1)));
  }
  if (lambda_H_.defined()) {
    linear.total = linear.total.mul(lambda_H_.view({-1, 1}));
    linear.number = linear.number.mul(lambda_H_.view({-1, 1, 1}));
  }
  const at::Tensor total = window.total.add(linear.total);
  if (share.defined()) share.copy_(linear.total.div(total));
  return window.number.add(linear.number).div(total.unsqueeze(-1));
}

// The block's keys enter the window's buffer, the first ones the sinks.
void RecurrentAttention::Remember(const Block& block, LayerMemory* memory) const {
  const auto append = [](const at::Tensor& old, const at::Tensor& rows) {
    return old.defined() ? at::cat({old, rows}, 2) : rows.clone();
  };
  memory->k = append(memory->k, block.k);
  memory->v = append(memory->v, block.v);
  const int64_t pinned = std::min(options_.form.sinks - memory->position, block.k.size(2));
  if (pinned <= 0) return;
  memory->sink_k = append(memory->sink_k, block.k.narrow(2, 0, pinned));
  memory->sink_v = append(memory->sink_v, block.v.narrow(2, 0, pinned));
}

void RecurrentAttention::StartSums(const Block& block, LayerMemory* memory) const {
  const int64_t B = block.q.size(0), d = block.q.size(3);
  const int64_t P = maps_.w_k.size(0);
  const int64_t F = options_.form.FeaturesOf(maps_.w_q.size(2));
  memory->S = at::zeros({B, P, F, d}, block.q.options());
  memory->z = at::zeros({B, P, F}, block.q.options());
  if (has_window_ && options_.form.mixing == Mixing::kMass) {
    memory->z_all = at::zeros({B, P, F}, block.q.options());
  }
  if (caches_) StartSparseCache(options_.form.cache_size, memory);
}

// e = gamma exp(s - c) over window, sinks and cache; c is the largest of these scores s.
RecurrentAttention::Sums RecurrentAttention::WindowSums(const Block& block,
                                                        const LayerMemory& memory,
                                                        const CacheTurnover* turnover) const {
  const int64_t position = memory.position, rows = block.q.size(2), end = position + rows;
  const int64_t sinks = memory.sink_k.defined() ? memory.sink_k.size(2) : 0;
  const int64_t from =
      std::min(end, std::max(window_.Start(position, memory.prompt), options_.form.sinks));
  at::Tensor keys = memory.k.narrow(2, from - memory.first, end - from);
  at::Tensor values = memory.v.narrow(2, from - memory.first, end - from);
  if (sinks > 0) {
    keys = at::cat({memory.sink_k, keys}, 2);
    values = at::cat({memory.sink_v, values}, 2);
  }
  const int64_t count = keys.size(2);
  at::Tensor scores = Scores(block.q, keys);
  if (rows > 1) {
    HideKeys(scores, position, [&](int64_t row, int64_t index) {  // the sinks come first
      const int64_t key = index < sinks ? index : index - sinks + from;
      return key <= row && (index < sinks || key >= window_.Start(row, memory.prompt));
    });
  }
  if (turnover != nullptr) {
    const at::Tensor cached = Scores(block.q, turnover->k);
    scores = at::cat({scores, cached.masked_fill_(turnover->hidden_rm, kHidden)}, 3);
  }
  const at::Tensor weights = scores.sub(scores.amax(-1, true)).exp_();
  if (maps_.gamma_H.defined()) weights.mul_(maps_.gamma_H.view({-1, 1, 1}));
  Sums sums{WeightedValues(weights.narrow(3, 0, count), values), weights.sum(-1)};
  if (turnover != nullptr) {
    const at::Tensor of_cache = weights.narrow(3, count, turnover->k.size(2));
    sums.number = sums.number.add(at::matmul(of_cache, turnover->v));
  }
  return sums;
}

// What is folded already, and what stands beside it in the block.
RecurrentAttention::Sums RecurrentAttention::ReadSums(const at::Tensor& phi_q, const Beside& beside,
                                                      const LayerMemory& memory) const {
  const int64_t H = phi_q.size(1);
  const at::Tensor S = options_.swap_sums ? at::roll(memory.S, {-1}, {0}) : memory.S;
  const at::Tensor z = options_.swap_sums ? at::roll(memory.z, {-1}, {0}) : memory.z;
  const at::Tensor grouped = ByGroup(phi_q, S.size(1));
  Sums sums{ByHead(at::matmul(grouped, S), H),
            ByHead(at::matmul(grouped, z.unsqueeze(-1)), H).squeeze(-1)};
  if (!beside.phi_k.defined()) return sums;
  const at::Tensor x = ByHead(at::matmul(grouped, beside.phi_k.transpose(2, 3)), H);
  if (beside.hidden_rm.defined()) x.masked_fill_(beside.hidden_rm, 0);
  sums.number = sums.number.add(WeightedValues(x, beside.v));
  sums.total = sums.total.add(x.sum(-1));
  return sums;
}

// Span all and mode linear_only: a key is seen from its own row on.
RecurrentAttention::Sums RecurrentAttention::FoldBlock(const Block& block, const at::Tensor& phi_q,
                                                       LayerMemory* memory) const {
  const at::Tensor phi_k = PhiK(block.k);
  const at::Tensor hidden = HiddenLater(block.k.size(2), phi_k.device());
  Sums sums = ReadSums(phi_q, {phi_k, block.v, hidden}, *memory);
  AddToSums(phi_k, block.v, memory);
  return sums;
}

// Span outside: a row sees the keys that have left its own window. Those that no later row has in
// its window go into the sums.
RecurrentAttention::Sums RecurrentAttention::FoldLeaving(const Block& block,
                                                         const at::Tensor& phi_q,
                                                         LayerMemory* memory) const {
  const int64_t position = memory->position, rows = block.q.size(2);
  const int64_t from = std::max(memory->first, options_.form.sinks);
  const int64_t count = window_.Start(position + rows, memory->prompt) - from;
  Beside beside = DefectKeys(rows, *memory);
  if (count <= 0) return ReadSums(phi_q, beside, *memory);
  const at::Tensor k = memory->k.narrow(2, from - memory->first, count);
  const at::Tensor v = memory->v.narrow(2, from - memory->first, count);
  const at::Tensor phi_k = PhiK(k);
  if (rows > 1 && !beside.v.defined()) {  // a single row still has them all in its window
    const at::Tensor hidden = HiddenKeys(
        position, rows, count,
        [&](int64_t row, int64_t index) {
          return from + index < window_.Start(row, memory->prompt);
        },
        k.device());
    beside = {phi_k, v, hidden};
  }
  Sums sums = ReadSums(phi_q, beside, *memory);
  AddToSums(phi_k, v, memory);
  return sums;
}

// LoLCATs' defect: rows of a prompt that fits into the window read all keys up to their own.
RecurrentAttention::Beside RecurrentAttention::DefectKeys(int64_t rows,
                                                          const LayerMemory& memory) const {
  const int64_t position = memory.position;
  if (!options_.form.HasDefect(memory.prompt) || position >= memory.prompt) return {};
  const at::Tensor hidden = HiddenKeys(
      position, rows, position + rows, [](int64_t row, int64_t index) { return index <= row; },
      memory.k.device());
  return {PhiK(memory.k), memory.v, hidden};
}

CacheTurnover RecurrentAttention::TurnOverIn(const Block& block, const LayerMemory& memory) const {
  const int64_t position = memory.position, rows = block.q.size(2), H = memory.S.size(1);
  const int64_t from = std::max(memory.first, options_.form.sinks);
  const auto left_before = [&](int64_t row) {
    return std::max<int64_t>(0, window_.Start(row, memory.prompt) - from);
  };
  const int64_t count = left_before(position + rows), first = count > 0 ? from - memory.first : 0;
  const at::Tensor left_r = at::empty({rows}, at::kLong);
  for (int64_t i = 0; i < rows; ++i) {
    left_r.mutable_data_ptr<int64_t>()[i] = left_before(position + i);
  }
  const LeavingKeys leaving{PerHead(memory.k.narrow(2, first, count), H),
                            PerHead(memory.v.narrow(2, first, count), H),
                            left_r.to(block.q.device())};
  return TurnOver(
      leaving, [this](const at::Tensor& keys) { return PhiK(keys); }, memory);
}

RecurrentAttention::Sums RecurrentAttention::FoldTurnover(const at::Tensor& phi_q,
                                                          CacheTurnover turnover,
                                                          LayerMemory* memory) const {
  const auto read = [this](const at::Tensor& x) {
    return options_.swap_sums ? at::roll(x, {-1}, {0}) : x;
  };
  const int64_t N = turnover.phi.size(2);
  const at::Tensor v = turnover.v.narrow(2, turnover.v.size(2) - N, N);
  Sums sums = ReadSums(phi_q, {read(turnover.phi), read(v), read(turnover.unfolded_rm)}, *memory);
  memory->S = std::move(turnover.S);
  memory->z = std::move(turnover.z);
  memory->cached_k = std::move(turnover.cached_k);
  memory->cached_v = std::move(turnover.cached_v);
  memory->cached_score = std::move(turnover.cached_score);
  return sums;
}

// phi_q times the sum of phi_k over all keys up to each row (B,H',r): mixing kind mass.
at::Tensor RecurrentAttention::MassOfAll(const Block& block, const at::Tensor& phi_q,
                                         LayerMemory* memory) const {
  const int64_t H = phi_q.size(1);
  const at::Tensor phi_k = PhiK(block.k), grouped = ByGroup(phi_q, phi_k.size(1));
  const at::Tensor x = ByHead(at::matmul(grouped, phi_k.transpose(2, 3)), H);
  const at::Tensor hidden = HiddenLater(block.k.size(2), x.device());
  if (hidden.defined()) x.masked_fill_(hidden, 0);
  const at::Tensor before = ByHead(at::matmul(grouped, memory->z_all.unsqueeze(-1)), H).squeeze(-1);
  memory->z_all.add_(phi_k.sum(2));
  return before.add(x.sum(-1));
}

// What no later row has in its window leaves the buffer.
void RecurrentAttention::Forget(int64_t rows, LayerMemory* memory) const {
  const int64_t end = memory->position + rows;
  const int64_t start = window_.Start(end, memory->prompt);
  memory->k = memory->k.narrow(2, start - memory->first, end - start).clone();
  memory->v = memory->v.narrow(2, start - memory->first, end - start).clone();
  memory->first = start;
}

at::Tensor RecurrentAttention::PhiQ(const at::Tensor& q_BHrd) const {
  return FeatureMap(options_.form, q_BHrd, maps_.w_q, maps_.b_q);
}

at::Tensor RecurrentAttention::PhiK(const at::Tensor& k_BKmd) const {
  return FeatureMap(options_.form, k_BKmd, maps_.w_k, maps_.b_k);
}

}  // namespace tandem
