// One piece of the general operator under autograd, and the operator that runs pieces (general.h).
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/max.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <array>
#include <cmath>
#include <limits>

#include "worker/model/attention/general.h"
#include "worker/model/attention/tiles.h"

namespace tandem::attention {
namespace {

constexpr double kLinearEpsilon = 1e-12;  // method.md §3, linear_only
constexpr double kMasked = -std::numeric_limits<double>::infinity();

// Numerators and denominators of one piece; N = B K pairs of sequence and group.
class PieceForward {
 public:
  PieceForward(ComponentMode mode, const AttentionCall& call)
      : mode_(mode),
        call_(call),
        tiles_(mode, call.form, call.mode_sinks, call.q.size(2)),
        masks_(MakeMasks(tiles_, call.form, call.q.device())),
        groups_(call.k.size(1)),
        G_(call.q.size(1) / groups_) {}

  // Fills mass_BHT, if given, with Z / D.
  at::Tensor Run(at::Tensor* mass_BHT) {
    if (tiles_.linear) ComputeLinear();
    if (tiles_.softmax) ComputeSoftmax();
    at::Tensor total;
    if (tiles_.softmax) total = weights_.sum(-1);
    if (tiles_.linear) total = total.defined() ? total.add(linear_mass_) : linear_mass_;
    if (mode_ == ComponentMode::kLinearOnly) total = total.add(kLinearEpsilon);
    const at::Tensor y = SumValues().div(total.unsqueeze(-1));
    if (mass_BHT != nullptr) {
      *mass_BHT =
          UnfoldRows(tiles_, linear_mass_.div(total).unsqueeze(-1), call_.q.size(0)).squeeze(-1);
    }
    return UnfoldRows(tiles_, y, call_.q.size(0));
  }

 private:
  int64_t N() const { return call_.q.size(0) * groups_; }
  const at::Tensor& KeysOfLinear() const {
    return call_.k_linear.defined() ? call_.k_linear : call_.k;
  }
  const at::Tensor& ValuesOfLinear() const {
    return call_.v_linear.defined() ? call_.v_linear : call_.v;
  }
  // (H) -> (N,1,G,1) beside rows.
  at::Tensor PerRow(const at::Tensor& of_heads) const {
    return of_heads.view({1, groups_, 1, G_, 1})
        .expand({call_.q.size(0), groups_, 1, G_, 1})
        .reshape({N(), 1, G_, 1});
  }
  // Rows (N,n,G,C,a) times one matrix (N,n,a,b) for all heads of the group.
  at::Tensor Shared(const at::Tensor& rows, const at::Tensor& matrix) const {
    return at::matmul(rows.flatten(2, 3), matrix).unflatten(2, {G_, tiles_.rows});
  }
  // Rows (N,n,G,C,a) times (N,n,g,a,b): a matrix per head, or one (g = 1).
  at::Tensor ByMap(const at::Tensor& rows, const at::Tensor& matrix) const {
    if (matrix.size(2) == 1) return Shared(rows, matrix.squeeze(2));
    return at::matmul(rows, matrix);
  }

  // x of the band, Z, and the states (method.md §4).
  void ComputeLinear() {
    const AttentionForm& form = call_.form;
    at::Tensor query = FeatureMap(form, call_.q, call_.w_q, call_.b_q);
    if (mode_ == ComponentMode::kHybrid && form.affine)
      query = query.mul(call_.gamma.neg().add(1).view({-1, 1, 1}));
    phi_q_ = FoldRows(tiles_, query, groups_, 1);
    phi_k_ = FeatureMap(form, KeysOfLinear(), call_.w_k, call_.b_k);
    const int64_t maps = phi_k_.size(1) / groups_;
    const at::Tensor band =
        Band(tiles_, phi_k_, 1).unflatten(0, {N(), maps}).transpose(1, 2);  // (N,n,g,F,W)
    pairs_ = ByMap(phi_q_, band);
    linear_ = pairs_.masked_fill(masks_.linear_n1CW.logical_not(), 0);
    linear_mass_ = linear_.sum(-1);
    if (tiles_.state_blocks() > 0) ComputeStates(maps);
  }

  // S and z of the blocks before each band, for row blocks lead + 1 and later.
  void ComputeStates(int64_t maps) {
    const int64_t n = tiles_.state_blocks(), C = tiles_.rows, F = phi_k_.size(3);
    const int64_t d = call_.v.size(3), first = tiles_.lead_blocks() + 1;
    at::Tensor keys = phi_k_.narrow(2, 0, n * C);
    if (mode_ == ComponentMode::kHybrid && call_.form.span == Span::kOutside && tiles_.sinks > 0) {
      const int64_t s = std::min(tiles_.sinks, n * C);
      keys = at::constant_pad_nd(keys.narrow(2, s, n * C - s), {0, 0, s, 0}, 0);
    }
    keys = keys.reshape({N(), maps, n, C, F}).permute({0, 2, 1, 4, 3});  // (N,n,g,F,C)
    const at::Tensor values = ValuesOfLinear().narrow(2, 0, n * C).reshape({N(), n, C, d});
    const at::Tensor state =
        at::matmul(keys.reshape({N(), n, maps * F, C}), values).cumsum(1).unflatten(2, {maps, F});
    const at::Tensor mass = keys.sum(-1).cumsum(1).unsqueeze(-1);  // (N,n,g,F,1)
    const at::Tensor query = phi_q_.narrow(1, first, n);
    state_values_ = ByMap(query, state);
    linear_mass_ = AddLater(linear_mass_, ByMap(query, mass).squeeze(-1), first);
  }

  // to + what belongs to the row blocks from `first` on.
  static at::Tensor AddLater(const at::Tensor& to, const at::Tensor& later, int64_t first) {
    return at::cat({to.narrow(1, 0, first), to.narrow(1, first, later.size(1)).add(later)}, 1);
  }

  // weights_ = e of [sinks, band], ascending keys.
  void ComputeSoftmax() {
    const double tau = 1.0 / std::sqrt(static_cast<double>(call_.q.size(3)));
    const at::Tensor query = FoldRows(tiles_, call_.q, groups_, 0).mul(tau);
    std::vector<at::Tensor> scores;
    if (tiles_.sinks > 0) {
      const at::Tensor keys =
          call_.k.narrow(2, 0, tiles_.sinks).flatten(0, 1).transpose(1, 2).unsqueeze(1);
      scores.push_back(Shared(query, keys).masked_fill(masks_.sinks_n1Cs.logical_not(), kMasked));
    }
    if (tiles_.band_softmax) {
      scores.push_back(Shared(query, Band(tiles_, call_.k, 0))
                           .masked_fill(masks_.window_n1CW.logical_not(), kMasked));
    }
    const at::Tensor all = scores.size() == 1 ? scores[0] : at::cat(scores, -1);
    at::Tensor top = std::get<0>(at::max(all, -1, true));
    if (call_.form.detach_max) top = top.detach();
    weights_ = at::exp(all.sub(top));
    if (mode_ != ComponentMode::kHybrid) return;
    weights_ = weights_.mul(RowFactor().unsqueeze(-1));
    if (call_.window_off) weights_ = weights_.masked_fill(masks_.has_linear_n1C.unsqueeze(-1), 0);
  }

  // gamma of the row; with mixing by mass the map's mass of the window over its softmax's.
  at::Tensor RowFactor() const {
    if (call_.form.mixing == Mixing::kShared)
      return PerRow(call_.gamma.mul(call_.form.window_gain));
    at::Tensor mass = pairs_.masked_fill(masks_.window_n1CW.logical_not(), 0).sum(-1);
    if (tiles_.sinks > 0) {
      const int64_t maps = phi_k_.size(1) / groups_;
      const at::Tensor keys = phi_k_.narrow(2, 0, tiles_.sinks)
                                  .reshape({N(), 1, maps, tiles_.sinks, phi_k_.size(3)})
                                  .transpose(-1, -2);
      mass = mass.add(ByMap(phi_q_, keys.expand({N(), tiles_.blocks, maps, -1, -1}))
                          .masked_fill(masks_.sinks_n1Cs.logical_not(), 0)
                          .sum(-1));
    }
    return mass.div(weights_.sum(-1));
  }

  // sum e v + sum x v
  at::Tensor SumValues() const {
    at::Tensor sum;
    const auto add = [&](const at::Tensor& part) { sum = sum.defined() ? sum.add(part) : part; };
    at::Tensor band_weights = linear_;
    if (tiles_.sinks > 0) {
      const at::Tensor values = call_.v.narrow(2, 0, tiles_.sinks).flatten(0, 1).unsqueeze(1);
      add(Shared(weights_.narrow(-1, 0, tiles_.sinks), values));
    }
    if (tiles_.band_softmax) {
      const at::Tensor e = weights_.narrow(-1, tiles_.sinks, tiles_.width);
      if (!tiles_.linear) {
        band_weights = e;
      } else if (call_.v_linear.defined()) {
        add(Shared(e, Band(tiles_, call_.v, 0).transpose(2, 3)));
      } else {
        band_weights = linear_.add(e);
      }
    }
    if (band_weights.defined())
      add(Shared(band_weights, Band(tiles_, ValuesOfLinear(), 0).transpose(2, 3)));
    if (state_values_.defined()) sum = AddLater(sum, state_values_, tiles_.lead_blocks() + 1);
    return sum;
  }

  const ComponentMode mode_;
  const AttentionCall& call_;
  const Tiles tiles_;
  const TileMasks masks_;
  const int64_t groups_, G_;
  at::Tensor phi_q_, phi_k_;  // (N,n,G,C,F), (B,Y,T,F)
  at::Tensor pairs_, linear_, linear_mass_, state_values_, weights_;
};

// The differentiable arguments, in the operator's order.
using Arguments = std::array<at::Tensor, 8>;
enum ArgumentIndex { kQ, kK, kV, kWq, kWk, kBq, kBk, kGamma };

Arguments ArgumentsOf(const AttentionCall& call) {
  return {call.q, call.k, call.v, call.w_q, call.w_k, call.b_q, call.b_k, call.gamma};
}

AttentionCall WithArguments(AttentionCall call, const Arguments& a) {
  call.q = a[kQ];
  call.k = a[kK];
  call.v = a[kV];
  call.w_q = a[kWq];
  call.w_k = a[kWk];
  call.b_q = a[kBq];
  call.b_k = a[kBk];
  call.gamma = a[kGamma];
  return call;
}

// The part of x, whose dimension `dim` counts heads or groups, that belongs to a piece's groups.
at::Tensor OfGroups(const at::Tensor& x, int64_t dim, int64_t groups, const Piece& piece) {
  if (!x.defined()) return x;
  const int64_t each = x.size(dim) / groups;
  return x.narrow(dim, piece.group_begin * each, (piece.group_end - piece.group_begin) * each);
}

at::Tensor OfPiece(const at::Tensor& x, int64_t groups, const Piece& piece) {
  if (!x.defined()) return x;
  return OfGroups(x.narrow(0, piece.batch_begin, piece.batch_end - piece.batch_begin), 1, groups,
                  piece);
}

Arguments OfPiece(const Arguments& all, const Piece& piece) {
  const int64_t groups = all[kK].size(1);
  Arguments part;
  for (size_t i = 0; i < part.size(); ++i)
    part[i] = i <= kV ? OfPiece(all[i], groups, piece) : OfGroups(all[i], 0, groups, piece);
  return part;
}

AttentionCall CallOfPiece(const AttentionCall& call, const Arguments& part, const Piece& piece) {
  AttentionCall result = WithArguments(call, part);
  result.k_linear = OfPiece(call.k_linear, call.k.size(1), piece);
  result.v_linear = OfPiece(call.v_linear, call.k.size(1), piece);
  return result;
}

std::vector<Piece> PiecesOf(ComponentMode mode, const AttentionCall& call) {
  const Tiles t(mode, call.form, call.mode_sinks, call.q.size(2));
  const int64_t G = call.q.size(1) / call.k.size(1), d = call.q.size(3);
  int64_t elements = G * t.padded() * (5 * (t.width + t.sinks) + 4 * d);
  if (t.linear) {
    const int64_t F = call.form.FeaturesOf(call.w_q.size(2));
    elements += G * (4 * t.padded() * F + 3 * t.state_blocks() * F * d);
  }
  return SplitPieces(call.q, call.q.size(0), call.k.size(1), elements);
}

at::Tensor RunPieces(ComponentMode mode, const AttentionCall& call, at::Tensor* mass_BHT) {
  const at::NoGradGuard no_gradients;
  const std::vector<Piece> pieces = PiecesOf(mode, call);
  if (pieces.size() == 1) return PieceForward(mode, call).Run(mass_BHT);
  const int64_t B = call.q.size(0), H = call.q.size(1), T = call.q.size(2), K = call.k.size(1);
  const at::Tensor out = at::empty({B, T, H, call.q.size(3)}, call.q.options()).transpose(1, 2);
  if (mass_BHT != nullptr) *mass_BHT = at::empty({B, H, T}, call.q.options());
  for (const Piece& piece : pieces) {
    const AttentionCall part = CallOfPiece(call, OfPiece(ArgumentsOf(call), piece), piece);
    at::Tensor mass;
    OfPiece(out, K, piece)
        .copy_(PieceForward(mode, part).Run(mass_BHT != nullptr ? &mass : nullptr));
    if (mass_BHT != nullptr) OfPiece(*mass_BHT, K, piece).copy_(mass);
  }
  return out;
}

// What is not a differentiable argument, kept for backward.
struct Setting : torch::CustomClassHolder {
  Setting(ComponentMode m, AttentionCall c) : mode(m), call(std::move(c)) {}
  const ComponentMode mode;
  const AttentionCall call;  // its arguments undefined
};

// Runs the forward again under autograd, piece by piece, and adds up what the pieces share.
class GeneralFunction : public torch::autograd::Function<GeneralFunction> {
 public:
  using Context = torch::autograd::AutogradContext;
  using List = torch::autograd::variable_list;

  // An empty tensor stands for an undefined one: autograd takes none.
  static at::Tensor forward(Context* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& w_q, const at::Tensor& w_k,
                            const at::Tensor& b_q, const at::Tensor& b_k, const at::Tensor& gamma,
                            const c10::intrusive_ptr<Setting>& setting) {
    const List all = {q, k, v, w_q, w_k, b_q, b_k, gamma};
    ctx->save_for_backward(all);
    ctx->saved_data["setting"] = c10::IValue::make_capsule(setting);
    return RunPieces(setting->mode, WithArguments(setting->call, Given(all)), nullptr);
  }

  static List backward(Context* ctx, const List& grad_outputs) {
    const auto setting =
        c10::static_intrusive_pointer_cast<Setting>(ctx->saved_data["setting"].toCapsule());
    const Arguments all = Given(ctx->get_saved_variables());
    const AttentionCall call = WithArguments(setting->call, all);
    Arguments sums;
    for (size_t i = 0; i < all.size(); ++i)
      if (all[i].defined() && ctx->needs_input_grad(i))
        sums[i] = at::zeros(all[i].sizes(), all[i].options());
    for (const Piece& piece : PiecesOf(setting->mode, call))
      AddPiece(setting->mode, call, piece, grad_outputs[0], sums);
    List result(sums.begin(), sums.end());
    result.emplace_back();
    return result;
  }

 private:
  static Arguments Given(const List& list) {
    Arguments given;
    for (size_t i = 0; i < given.size(); ++i)
      if (list[i].numel() > 0) given[i] = list[i].detach();
    return given;
  }

  static void AddPiece(ComponentMode mode, const AttentionCall& call, const Piece& piece,
                       const at::Tensor& upstream, const Arguments& sums) {
    const at::AutoGradMode gradients_on(true);
    Arguments leaves = OfPiece(ArgumentsOf(call), piece);
    std::vector<at::Tensor> inputs, targets;
    const int64_t groups = call.k.size(1);
    for (size_t i = 0; i < leaves.size(); ++i) {
      if (!sums[i].defined()) continue;
      leaves[i] = leaves[i].detach().set_requires_grad(true);
      inputs.push_back(leaves[i]);
      targets.push_back(i <= kV ? OfPiece(sums[i], groups, piece)
                                : OfGroups(sums[i], 0, groups, piece));
    }
    const at::Tensor y = PieceForward(mode, CallOfPiece(call, leaves, piece)).Run(nullptr);
    const List gradients = torch::autograd::grad({y}, inputs, {OfPiece(upstream, groups, piece)},
                                                 false, false, /*allow_unused=*/true);
    const at::NoGradGuard no_gradients;
    for (size_t i = 0; i < inputs.size(); ++i)
      if (gradients[i].defined()) targets[i].add_(gradients[i]);
  }
};

// Without what the mode does not read: such an argument has no gradient, rather than a zero one.
Arguments ReadBy(ComponentMode mode, const AttentionCall& call) {
  Arguments a = ArgumentsOf(call);
  const bool linear = mode == ComponentMode::kHybrid || mode == ComponentMode::kLinearOnly;
  for (size_t i = kWq; i <= kBk; ++i)
    if (!linear) a[i] = at::Tensor();
  if (mode != ComponentMode::kHybrid || call.form.mixing == Mixing::kMass) a[kGamma] = at::Tensor();
  return a;
}

bool AnyGradient(const Arguments& arguments) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& x : arguments)
    if (x.defined() && x.requires_grad()) return true;
  return false;
}

}  // namespace

at::Tensor GeneralAttention(ComponentMode mode, const AttentionCall& call) {
  const Arguments all = ReadBy(mode, call);
  if (!AnyGradient(all)) return RunPieces(mode, WithArguments(call, all), nullptr);
  const at::Tensor none = at::empty({0}, call.q.options());
  const auto given = [&](size_t i) { return all[i].defined() ? all[i] : none; };
  return GeneralFunction::apply(given(kQ), given(kK), given(kV), given(kWq), given(kWk), given(kBq),
                                given(kBk), given(kGamma),
                                c10::make_intrusive<Setting>(mode, WithArguments(call, {})));
}

HybridDiagnostics GeneralWithMass(const AttentionCall& call) {
  HybridDiagnostics result;
  result.out_BHTd = RunPieces(ComponentMode::kHybrid, call, &result.linear_mass_BHT);
  return result;
}

}  // namespace tandem::attention
