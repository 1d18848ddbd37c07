#include "worker/model/plan_form.h"

namespace tandem {

AttentionForm AttentionFormOf(const AttentionPlan& plan) {
  AttentionForm form;
  form.window = plan.window_size;
  form.sinks = plan.window_sinks;
  form.span = plan.linear_span == "all" ? Span::kAll : Span::kOutside;
  form.detach_max = plan.max_grad == "detach";
  form.map = FeatureMapKindFromWord(plan.feature_map_kind);
  form.window_kind = WindowKindFromWord(plan.window_kind);
  return form;
}

}  // namespace tandem
