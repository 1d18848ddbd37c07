// tandem workers: the nodes and what they run.
#include <CLI/CLI.hpp>

#include "base/clock.h"
#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"
#include "cli/verbs/verbs.h"
#include "spec/json.h"

namespace tandem::cli {
namespace {

int Workers(const Invocation& invocation) {
  Client client(invocation.server);
  const auto workers = client.ListWorkers();
  if (!workers.ok()) return Fail(workers.status());
  if (invocation.format == Format::kName) {
    for (const auto& worker : workers->workers()) PrintOut(worker.name() + "\n");
  } else if (invocation.format == Format::kTable) {
    PrintOut(WorkerTable({workers->workers().begin(), workers->workers().end()},
                         Clock::System().WallMs()));
  } else {
    auto list = nlohmann::json::array();
    for (const auto& worker : workers->workers()) list.push_back(ProtoToJson(worker));
    PrintOut(Rendered({{"workers", list}}, invocation.format));
  }
  return kExitOk;
}

}  // namespace

void AddWorkers(CLI::App& app, Invocation& invocation) {
  CLI::App* verb = AddVerb(app, invocation, "workers", "List the workers");
  verb->callback(
      [&invocation] { invocation.action = [&invocation] { return Workers(invocation); }; });
}

}  // namespace tandem::cli
