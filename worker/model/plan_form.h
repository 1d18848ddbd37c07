// The plan's words about attention as the form that model code runs. The one place that knows both.
// Pure; a word the plan should never hold throws c10::Error.
#pragma once

#include "worker/model/attention/form.h"
#include "worker/plan/plan.h"

namespace tandem {

AttentionForm AttentionFormOf(const AttentionPlan& plan);

}  // namespace tandem
