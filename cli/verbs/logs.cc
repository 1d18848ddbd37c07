// tandem logs: what the processes of an attempt wrote, through the coordinator.
#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>

#include "base/mutex.h"
#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/job_text.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

struct LogsOptions {
  std::string job;
  bool follow = false;
  int64_t epoch = 0;
  int64_t tail_bytes = 0;
  std::string file;
};

// A follower of a job that has not run yet sees nothing for a while.
void TellWait(Client& client, const std::string& name) {
  const auto job = client.GetJob(name);
  if (!job.ok() || job->epoch() > 0 || IsTerminal(job->state())) return;  // the stream says it
  PrintErr("job " + ShortName(job->name()) + " has had no attempt; waiting for its logs. " +
           ProgressWords(*job) + "\n");
}

int Logs(const Invocation& invocation, const LogsOptions& options) {
  Client client(invocation.server);
  v1::StreamLogsRequest request;
  request.set_name(options.job);
  request.set_epoch(options.epoch);
  request.set_follow(options.follow);
  request.set_tail_bytes(options.tail_bytes);
  request.set_file(options.file);
  grpc::ClientContext context;
  std::atomic<bool> interrupted = false;
  invocation.interrupts->Set([&](int) {
    interrupted = true;
    context.TryCancel();
  });
  if (options.follow) TellWait(client, options.job);
  const auto stream = client.StreamLogs(context, request);
  for (v1::StreamLogsResponse response; stream->Read(&response);) PrintOut(response.text());
  const Status status = client.ToStatus(stream->Finish());
  invocation.interrupts->Set(nullptr);
  if (interrupted) return kExitInterrupted;
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddLogs(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<LogsOptions>();
  CLI::App* verb = app.add_subcommand("logs", "Print what a job's processes wrote");
  verb->fallthrough();
  verb->add_option("job", options->job, "Job id, full name or uid")->required()->type_name("JOB");
  verb->add_flag("-f,--follow", options->follow, "Go on as the job writes");
  verb->add_option("--attempt", options->epoch, "Which attempt; default: the newest")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  verb->add_option("--tail", options->tail_bytes, "Only so many bytes from the end of each file")
      ->check(CLI::NonNegativeNumber)
      ->type_name("BYTES");
  verb->add_option("--file", options->file, "Only this file, such as rank-0.err")
      ->type_name("NAME");
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return Logs(invocation, *options); };
  });
}

}  // namespace tandem::cli
