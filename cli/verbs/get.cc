// tandem get: one job as it stands, with its history.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/clock.h"
#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"
#include "cli/verbs/verbs.h"
#include "spec/json.h"
#include "spec/spec.h"

namespace tandem::cli {
namespace {

std::string History(const v1::ListEventsResponse& events) {
  std::vector<std::vector<std::string>> rows = {{"TIME", "EVENT", "ATTEMPT", "MESSAGE"}};
  for (const auto& event : events.events()) {
    rows.push_back({ProtoToJson(event.time()).get<std::string>(), event.kind(),
                    event.epoch() > 0 ? std::to_string(event.epoch()) : "-", event.message()});
  }
  return "\n" + Table(rows);
}

int Get(const Invocation& invocation, const std::string& name, bool only_spec) {
  Client client(invocation.server);
  const auto job = client.GetJob(name);
  if (!job.ok()) return Fail(job.status());
  if (only_spec) {
    PrintOut(invocation.format == Format::kJson ? Rendered(ProtoToJson(job->spec()), Format::kJson)
                                                : SpecToYaml(job->spec()));
  } else if (invocation.format == Format::kName) {
    PrintOut(job->name() + "\n");
  } else if (invocation.format != Format::kTable) {
    PrintOut(Rendered(ProtoToJson(*job), invocation.format));
  } else {
    PrintOut(JobDetails(*job, Clock::System().WallMs()));
    const auto events = client.ListEvents(job->name());
    if (events.ok() && events->events_size() > 0) PrintOut(History(*events));
  }
  return kExitOk;
}

}  // namespace

void AddGet(CLI::App& app, Invocation& invocation) {
  const auto job = std::make_shared<std::string>();
  const auto only_spec = std::make_shared<bool>(false);
  CLI::App* verb = AddVerb(app, invocation, "get", "Show one job");
  verb->add_option("job", *job, "Job id, full name or uid")->required()->type_name("JOB");
  verb->add_flag("--spec", *only_spec, "Only its spec, as a job file with every field");
  verb->callback([&invocation, job, only_spec] {
    invocation.action = [&invocation, job, only_spec] { return Get(invocation, *job, *only_spec); };
  });
}

}  // namespace tandem::cli
