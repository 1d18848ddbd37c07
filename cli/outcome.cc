#include "cli/outcome.h"

#include <string>
#include <vector>

#include "cli/component_text.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"

namespace tandem::cli {

int TellOutcome(const v1::Job& job, Format format, const std::string& require_verdict) {
  const bool succeeded = job.state() == v1::JOB_STATE_SUCCEEDED;
  if (format == Format::kName) {
    PrintOut(job.name() + "\n");
  } else if (format != Format::kTable) {
    PrintOut(Rendered(ResultJson(job), format));
  } else if (succeeded) {
    std::string text;
    if (job.has_report())
      text = ComponentTable(job.report(), job.spec().evaluate().sinks(), StyleOfStdout()) + "\n";
    std::vector<std::vector<std::string>> places;
    if (!job.artifact().empty())
      places.push_back({"Model:", job.artifact()});  // diagnose makes none
    places.push_back({"Report:", job.report_path()});
    PrintOut(text + Table(places));
  }
  if (!succeeded) {
    std::string why = job.message().empty() ? job.reason() : job.message();
    if (!why.empty()) why = ": " + why;
    if (!job.reason().empty() && !job.message().empty()) why += " (" + job.reason() + ")";
    PrintError("job " + ShortName(job.name()) +
               (job.state() == v1::JOB_STATE_FAILED ? " failed" : " was cancelled") + why);
    return kExitJobFailed;
  }
  if (!require_verdict.empty() &&
      VerdictRank(job.report().verdict()) < VerdictRank(require_verdict)) {
    PrintError("the verdict is " + job.report().verdict() + "; --require-verdict asks for " +
               require_verdict);
    return kExitBelowVerdict;
  }
  return kExitOk;
}

}  // namespace tandem::cli
