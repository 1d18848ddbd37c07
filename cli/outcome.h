// How a job that has ended is told: its result on stdout, why it failed on stderr, and the exit
// code.
#pragma once

#include <string>

#include "cli/output.h"
#include "tandem/v1/job.pb.h"

namespace tandem::cli {

// require_verdict: "", "balanced" or "leaning" (which balanced satisfies).
int TellOutcome(const v1::Job& job, Format format, const std::string& require_verdict);

}  // namespace tandem::cli
