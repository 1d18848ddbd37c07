#include "worker/model/plan_form.h"

namespace tandem {

AttentionForm AttentionFormOf(const AttentionPlan& plan) {
  AttentionForm form;
  form.window = plan.window_size;
  form.sinks = plan.window_sinks;
  form.span = plan.linear_span == "all" ? Span::kAll : Span::kOutside;
  form.detach_max = plan.max_grad == "detach";
  form.map = FeatureMapKindFromWord(plan.feature_map_kind);
  form.two_sided = plan.feature_map_two_sided;
  form.window_kind = WindowKindFromWord(plan.window_kind);
  form.align_end = plan.window_align_end;
  form.mixing = MixingFromWord(plan.mixing_kind);
  form.affine = plan.mixing_affine;
  form.window_gain = plan.window_gain;
  form.cache_size = plan.cache_size;
  form.lolcats_defect = plan.compat == "lolcats";
  for (const RetainedGroup& retained : plan.retained) {
    const auto layer = static_cast<size_t>(retained.layer);
    if (form.retained.size() <= layer) form.retained.resize(layer + 1);
    form.retained[layer].push_back(retained.group);
  }
  return form;
}

}  // namespace tandem
