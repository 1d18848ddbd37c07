#include "cli/outcome.h"

#include <string>
#include <utility>
#include <vector>

#include "cli/component_text.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"

namespace tandem::cli {
namespace {

// The reasons for which a job fails (coordinator/core/requeue.h) and what its owner can do.
std::string AdviceFor(const std::string& reason) {
  if (reason == "DATA") return "mend the file that it names, and start the job again";
  if (reason == "BAD_PLAN") return "change what it names in the job file, and start the job again";
  if (reason == "NO_PROGRESS") {
    return "read the log; where memory ran out (OOM, signal 9), lower batch_size or "
           "data.sequence_length";
  }
  return "";  // the cause says it
}

std::string PlaceOf(const v1::Job& job) {
  if (job.epoch() == 0) return "";
  std::string place = "attempt " + std::to_string(job.epoch()) + " on worker " + job.worker();
  const auto& progress = job.progress();
  if (progress.stage().empty()) return place;
  place += ", " + progress.stage();
  if (progress.steps() == 0) return place;
  return place + " step " + std::to_string(progress.step()) + "/" +
         std::to_string(progress.steps());
}

std::string Indented(std::string text) {
  for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 3) {
    text.replace(at, 1, "\n  ");
  }
  return text;
}

}  // namespace

std::string FailureText(const std::string& who, const v1::Job& job, const std::string& log) {
  if (job.state() == v1::JOB_STATE_CANCELLED) return who + " was cancelled";
  std::string text = who + " failed";
  if (!job.reason().empty()) text += " (" + job.reason() + ")";
  if (!job.message().empty()) text += ": " + Indented(job.message());
  const std::pair<const char*, std::string> lines[] = {{"\n  where:  ", PlaceOf(job)},
                                                       {"\n  to do:  ", AdviceFor(job.reason())},
                                                       {"\n  log:    ", log}};
  for (const auto& [head, line] : lines) {
    if (!line.empty()) text += head + line;
  }
  return text;
}

int TellOutcome(const v1::Job& job, Format format, const std::string& require_verdict,
                const std::string& log) {
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
    PrintError(FailureText("job " + ShortName(job.name()), job, log));
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
