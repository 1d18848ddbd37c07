// What a plan may say and this build of the rank does not do. Refused by name, never ignored.
//
// Each line goes when the thing it names is built; the table of fields (spec/) refuses the same at
// submit.
#pragma once

#include <string>
#include <vector>

#include "worker/plan/plan.h"

namespace tandem {

// One sentence each; empty: all is built.
std::vector<std::string> NotBuilt(const Plan& plan);

}  // namespace tandem
