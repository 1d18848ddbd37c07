// tandem cancel: ends a job. Safe to repeat.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"
#include "cli/verbs/verbs.h"
#include "spec/json.h"

namespace tandem::cli {
namespace {

int Cancel(const Invocation& invocation, const std::string& name) {
  Client client(invocation.server);
  const auto job = client.CancelJob(name);
  if (!job.ok()) return Fail(job.status());
  switch (invocation.format) {
    case Format::kTable:
      PrintOut(ShortName(job->name()) + " is " + StateText(job->state()) + "\n");
      break;
    case Format::kName:
      PrintOut(job->name() + "\n");
      break;
    default:
      PrintOut(Rendered(ProtoToJson(*job), invocation.format));
  }
  return kExitOk;
}

}  // namespace

void AddCancel(CLI::App& app, Invocation& invocation) {
  const auto job = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(app, invocation, "cancel", "Cancel a job");
  verb->add_option("job", *job, "Job id, full name or uid")->required()->type_name("JOB");
  verb->callback([&invocation, job] {
    invocation.action = [&invocation, job] { return Cancel(invocation, *job); };
  });
}

}  // namespace tandem::cli
