// The rules between fields, one function per subject. `resolved` has defaults filled in: a window
// of 2000 is too long for the default sequence. Pure.
#pragma once

#include "spec/violation_list.h"

namespace tandem {

// What must be there, and what may not stand beside what. Takes the spec as written.
void CheckPresence(const v1::JobSpec& spec, ViolationList& out);
void CheckDataFiles(const v1::DataSpec& data, ViolationList& out);
void CheckAttention(const v1::JobSpec& resolved, ViolationList& out);
void CheckDevice(const v1::JobSpec& resolved, ViolationList& out);
// from_recipe: the stages are the recipe's, so their fields are named without stages[i].
void CheckStages(const v1::JobSpec& resolved, bool from_recipe, ViolationList& out);
void CheckEvaluate(const v1::JobSpec& resolved, ViolationList& out);
void CheckExport(const v1::JobSpec& resolved, ViolationList& out);

}  // namespace tandem
