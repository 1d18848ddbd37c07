// What the general operator accepts, and how much of it is worked on at a time.
#include <ATen/core/Tensor.h>

#include <algorithm>

#include "worker/model/attention/general.h"

namespace tandem::attention {
namespace {

// Elements of temporaries at a time: a few tens of MB on the CPU, a few GB on an accelerator.
constexpr int64_t kCpuBudget = int64_t{1} << 22, kDeviceBudget = int64_t{1} << 28;

void CheckLike(const char* name, const at::Tensor& x, const at::Tensor& like,
               at::IntArrayRef sizes) {
  TORCH_CHECK(x.defined(), name, " is undefined; pass a tensor");
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, name, " is ",
              x.scalar_type(), "; must be float32 or float64");
  TORCH_CHECK(x.scalar_type() == like.scalar_type() && x.device() == like.device(), name, " is ",
              x.scalar_type(), " on ", x.device(), "; must be as q, ", like.scalar_type(), " on ",
              like.device());
  bool same = x.dim() == static_cast<int64_t>(sizes.size());
  for (size_t i = 0; same && i < sizes.size(); ++i)
    same = sizes[i] < 0 || x.size(static_cast<int64_t>(i)) == sizes[i];
  TORCH_CHECK(same, name, " has shape ", x.sizes(), "; must be ", sizes, " (-1: any)");
}

void CheckMaps(const AttentionCall& call) {
  const at::Tensor& q = call.q;
  const int64_t H = q.size(1), K = call.k.size(1), d = q.size(3);
  CheckLike("w_q", call.w_q, q, {H, d, -1});
  CheckLike("w_k", call.w_k, q, {-1, d, call.w_q.size(2)});
  const int64_t maps = call.w_k.size(0);
  TORCH_CHECK(maps == H || maps == K, "w_k has ", maps, " maps; must be one per query head, ", H,
              ", or per KV head, ", K);
  if (!call.b_q.defined()) return;
  const int64_t f = call.w_q.size(2);
  if (call.b_q.dim() == 1) {
    CheckLike("b_q", call.b_q, q, {H});
    CheckLike("b_k", call.b_k, q, {maps});
  } else {
    CheckLike("b_q", call.b_q, q, {H, f});
    CheckLike("b_k", call.b_k, q, {maps, f});
  }
}

}  // namespace

void CheckGeneralHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  CheckLike("q", q, q, {-1, -1, -1, -1});
  CheckLike("k", k, q, {q.size(0), -1, q.size(2), q.size(3)});
  CheckLike("v", v, q, k.sizes());
  TORCH_CHECK(q.size(2) >= 1, "a sequence has ", q.size(2), " tokens; must be at least 1");
  TORCH_CHECK(k.size(1) >= 1 && q.size(1) % k.size(1) == 0, "k has ", k.size(1),
              " heads; must divide the ", q.size(1), " query heads");
}

void CheckCall(ComponentMode mode, const AttentionCall& call) {
  CheckGeneralHeads(call.q, call.k, call.v);
  const AttentionForm& form = call.form;
  const bool hybrid = mode == ComponentMode::kHybrid;
  if (hybrid || mode == ComponentMode::kLinearOnly) CheckMaps(call);
  if (mode == ComponentMode::kSinksOnly)
    TORCH_CHECK(call.mode_sinks >= 1, "mode_sinks is ", call.mode_sinks, "; must be at least 1");
  TORCH_CHECK(form.window >= 1, "window is ", form.window, "; must be at least 1");
  TORCH_CHECK(form.sinks >= 0, "sinks is ", form.sinks, "; must be at least 0");
  if (!hybrid) return;
  if (call.k_linear.defined()) CheckLike("k_linear", call.k_linear, call.q, call.k.sizes());
  if (call.v_linear.defined()) CheckLike("v_linear", call.v_linear, call.q, call.v.sizes());
  if (form.mixing == Mixing::kShared) {
    CheckLike("gamma", call.gamma, call.q, {call.q.size(1)});
    return;
  }
  TORCH_CHECK(form.span == Span::kOutside && !form.affine && form.window_gain == 1,
              "mixing by mass knows no span all, affine or window_gain; leave them at their "
              "defaults");
}

int64_t ElementBudget(const at::Tensor& like) {
  return like.is_cpu() ? kCpuBudget : kDeviceBudget;
}

std::vector<Piece> SplitPieces(const at::Tensor& like, int64_t batch, int64_t groups,
                               int64_t elements) {
  const int64_t budget = ElementBudget(like);
  const int64_t fit = std::max<int64_t>(1, budget / std::max<int64_t>(1, elements));
  const int64_t sequences = std::clamp<int64_t>(fit / groups, 1, batch);
  const int64_t step = std::min(fit, groups);
  std::vector<Piece> pieces;
  for (int64_t b = 0; b < batch; b += sequences)
    for (int64_t g = 0; g < groups; g += step)
      pieces.push_back({b, std::min(b + sequences, batch), g, std::min(g + step, groups)});
  return pieces;
}

bool KernelsTake(const at::Tensor& q, int64_t map_dim) {
  const bool type = q.scalar_type() == at::kFloat || q.scalar_type() == at::kDouble;
  return q.is_cpu() && type && q.size(3) % 8 == 0 && map_dim % 8 == 0;
}

}  // namespace tandem::attention
