// tandem list: the jobs.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"
#include "cli/verbs/verbs.h"
#include "spec/json.h"

namespace tandem::cli {
namespace {

struct ListOptions {
  std::string project;
  std::string state;
};

int List(const Invocation& invocation, const ListOptions& options) {
  Client client(invocation.server);
  v1::ListJobsRequest request;
  request.set_project(options.project);
  request.set_state(options.state);
  const auto jobs = client.ListJobs(request);
  if (!jobs.ok()) return Fail(jobs.status());
  if (invocation.format == Format::kName) {
    for (const auto& job : jobs->jobs()) PrintOut(job.name() + "\n");
  } else if (invocation.format == Format::kTable) {
    PrintOut(JobTable({jobs->jobs().begin(), jobs->jobs().end()}, Clock::System().WallMs()));
  } else {
    auto list = nlohmann::json::array();
    for (const auto& job : jobs->jobs()) list.push_back(ProtoToJson(job));
    PrintOut(Rendered({{"jobs", list}}, invocation.format));
  }
  return kExitOk;
}

}  // namespace

void AddList(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<ListOptions>();
  CLI::App* verb = AddVerb(app, invocation, "list", "List jobs");
  verb->add_option("--project", options->project, "Only this project's")->type_name("PROJECT");
  verb->add_option("--state", options->state, "Only jobs in this state, such as RUNNING")
      ->type_name("STATE");
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return List(invocation, *options); };
  });
}

}  // namespace tandem::cli
