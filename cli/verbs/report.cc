// tandem report: what each component of a converted model is worth.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/files.h"
#include "cli/client.h"
#include "cli/component_text.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

int SaveHtml(Client& client, const std::string& name, const std::string& path) {
  const auto page = client.GetReport(name, "html");
  if (!page.ok()) return Fail(page.status());
  const std::string file = AbsolutePath(path);
  if (const Status status = WriteFileDurably(file, page->content()); !status.ok())
    return Fail(status);
  PrintErr("wrote " + path + "\n");
  return kExitOk;
}

int Report(const Invocation& invocation, const std::string& name, const std::string& html) {
  Client client(invocation.server);
  const auto job = client.GetJob(name);
  if (!job.ok()) return Fail(job.status());
  if (!job->has_report()) {
    return Fail(NotFound("job " + ShortName(job->name()) + " is " + StateText(job->state()) +
                         " and has no report; it is written by the stage evaluate"));
  }
  if (!html.empty()) {
    if (const int code = SaveHtml(client, job->name(), html); code != kExitOk) return code;
  }
  switch (invocation.format) {
    case Format::kName:
      PrintOut(job->name() + "\n");
      break;
    case Format::kTable:
      PrintOut(ComponentTable(job->report(), job->spec().evaluate().sinks(), StyleOfStdout()));
      break;
    default:
      PrintOut(Rendered(ResultJson(*job), invocation.format));
  }
  return kExitOk;
}

}  // namespace

void AddReport(CLI::App& app, Invocation& invocation) {
  const auto job = std::make_shared<std::string>();
  const auto html = std::make_shared<std::string>();
  CLI::App* verb =
      AddVerb(app, invocation, "report", "Show what each component of a converted model is worth");
  verb->add_option("job", *job, "Job id, full name or uid")->required()->type_name("JOB");
  AddHtml(*verb, *html, "Also save the full report, a single page, to this file");
  verb->callback([&invocation, job, html] {
    invocation.action = [&invocation, job, html] { return Report(invocation, *job, *html); };
  });
}

}  // namespace tandem::cli
