// tandem compare: converted models beside each other, from their reports.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>

#include "cli/client.h"
#include "cli/compared_job.h"
#include "cli/comparison.h"
#include "cli/comparison_output.h"
#include "cli/exit_code.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

struct CompareOptions {
  std::vector<std::string> jobs;
  ComparisonOutput output;
};

int Compare(const Invocation& invocation, const CompareOptions& options) {
  std::vector<ComparedJob> jobs;
  std::optional<Client> client;
  for (const auto& name : options.jobs) {
    std::error_code ignored;
    if (std::filesystem::exists(name, ignored)) {
      auto found = ReadJobs(name);
      if (!found.ok()) return Fail(found.status());
      for (auto& job : *found) jobs.push_back(std::move(job));
      continue;
    }
    if (!client) client.emplace(invocation.server);
    auto job = FetchJob(*client, name);
    if (!job.ok()) {
      return Fail(job.status().code() == Code::kUnavailable
                      ? job.status().WithContext(name + " is no file or folder, and")
                      : job.status());
    }
    jobs.push_back(std::move(*job));
  }
  MakeNamesUnique(jobs);
  const Status given = GiveComparison(ComparisonJson(jobs), options.output);
  return given.ok() ? kExitOk : Fail(given);
}

}  // namespace

void AddCompare(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<CompareOptions>();
  CLI::App* verb = AddComparisonVerb(
      app, "compare", "Compare converted models: components, suites, recall, cost, settings",
      options->output);
  verb->add_option("jobs", options->jobs,
                   "Job id, full name or uid; or a report.json, a job's folder, a work folder")
      ->required()
      ->type_name("JOB");
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return Compare(invocation, *options); };
  });
}

}  // namespace tandem::cli
