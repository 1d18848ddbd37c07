// tandem submit: hands a job to the cluster; durable when it returns.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/job_file.h"
#include "cli/verbs/verbs.h"
#include "spec/json.h"

namespace tandem::cli {
namespace {

struct SubmitOptions {
  std::string file;
  bool watch = false;
  bool dry_run = false;
  std::string request_id;
  std::string require_verdict;
};

int Submit(Invocation& invocation, const SubmitOptions& options) {
  const auto file = ReadJobFile(options.file);
  if (!file) return kExitUsage;
  Client client(invocation.server);
  v1::CreateJobRequest request;
  *request.mutable_spec() = file->parsed.spec;
  request.set_request_id(options.request_id.empty() ? NewRequestId() : options.request_id);
  request.set_validate_only(options.dry_run);
  const auto job = client.CreateJob(request);
  if (!job.ok() && job.status().code() == Code::kInvalidArgument) {
    PrintErr(FaultLines(file->path, FaultsOfMessage(job.status().message(), file->parsed)));
    return kExitUsage;
  }
  if (!job.ok()) return Fail(job.status());
  if (!job->message().empty()) PrintErr("note: " + job->message() + "\n");
  if (options.watch && !options.dry_run) {
    PrintErr("submitted " + job->name() + "\n");
    return WatchToEnd(invocation, job->name(), options.require_verdict);
  }
  if (invocation.format == Format::kName) PrintOut(job->name() + "\n");
  if (invocation.format == Format::kTable) {
    PrintOut(options.dry_run ? "valid: the coordinator would accept this job\n"
                             : "submitted " + job->name() + "\nwatch it:  " +
                                   CommandFor(invocation, "watch", job->name()) + "\n");
  }
  if (invocation.format == Format::kJson || invocation.format == Format::kYaml) {
    PrintOut(Rendered(ProtoToJson(*job), invocation.format));
  }
  return kExitOk;
}

}  // namespace

void AddSubmit(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<SubmitOptions>();
  CLI::App* verb = AddVerb(app, invocation, "submit", "Submit a job file to the cluster");
  verb->add_option("file", options->file, "Job file; - for stdin")
      ->required()
      ->type_name("JOB.yaml");
  verb->add_flag("--watch", options->watch, "Follow the job to its end; Ctrl-C detaches");
  verb->add_flag("--dry-run", options->dry_run, "Only let the coordinator check it");
  verb->add_option("--request-id", options->request_id,
                   "Submitting again with the same id gives the same job")
      ->type_name("ID");
  AddRequireVerdict(*verb, options->require_verdict);
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return Submit(invocation, *options); };
  });
}

}  // namespace tandem::cli
