// tandem workers: the nodes and what they run. `workers drain NAME` empties one, `workers undrain
// NAME` gives it jobs again. All are safe to repeat.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/clock.h"
#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"
#include "cli/verbs/verbs.h"
#include "spec/json.h"

namespace tandem::cli {
namespace {

int ListAll(const Invocation& invocation) {
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

// A call of Client that changes one worker.
using Change = Result<v1::Worker> (Client::*)(const std::string& name);

int ChangeOne(const Invocation& invocation, Change change, const std::string& name) {
  Client client(invocation.server);
  const auto worker = (client.*change)(name);
  if (!worker.ok()) return Fail(worker.status());
  switch (invocation.format) {
    case Format::kTable:
      PrintOut(ShortWorkerName(worker->name()) + " is " + StateText(worker->state()) + "\n");
      break;
    case Format::kName:
      PrintOut(worker->name() + "\n");
      break;
    default:
      PrintOut(Rendered(ProtoToJson(*worker), invocation.format));
  }
  return kExitOk;
}

void AddChange(CLI::App& workers, Invocation& invocation, Change change, const char* name,
               const char* words) {
  const auto worker = std::make_shared<std::string>();
  CLI::App* verb = workers.add_subcommand(name, words);
  verb->fallthrough();
  verb->add_option("worker", *worker, "Worker, as `tandem workers` lists it")
      ->required()
      ->type_name("NAME");
  verb->callback([&invocation, change, worker] {
    invocation.action = [&invocation, change, worker] {
      return ChangeOne(invocation, change, *worker);
    };
  });
}

}  // namespace

void AddWorkers(CLI::App& app, Invocation& invocation) {
  CLI::App* verb = AddVerb(app, invocation, "workers", "List the workers; drain or undrain one");
  AddChange(*verb, invocation, &Client::DrainWorker, "drain",
            "Give it no new attempts; running ones checkpoint, stop and move");
  AddChange(*verb, invocation, &Client::UndrainWorker, "undrain", "Give it jobs again");
  // Runs after the callback of a subcommand, whose action stands then.
  verb->callback([&invocation, verb] {
    if (!verb->get_subcommands().empty()) return;
    invocation.action = [&invocation] { return ListAll(invocation); };
  });
}

}  // namespace tandem::cli
