// How a job that has ended is told: its result on stdout, why it failed on stderr, and the exit
// code.
#pragma once

#include <string>

#include "cli/output.h"
#include "tandem/v1/job.pb.h"

namespace tandem::cli {

// require_verdict: "", "balanced" or "leaning" (which balanced satisfies). log: where the job's
// logs are, a path or the command that prints them; "" if nobody knows.
int TellOutcome(const v1::Job& job, Format format, const std::string& require_verdict,
                const std::string& log);

// A job that failed or was cancelled: the cause, where it happened, what to do, where the log is.
// `who`: "job small".
std::string FailureText(const std::string& who, const v1::Job& job, const std::string& log);

}  // namespace tandem::cli
