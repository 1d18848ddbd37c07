// tandem run: a whole cluster for one job, in one command. Running it again goes on where it
// stopped.
#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "cli/client.h"
#include "cli/embedded.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/job_file.h"
#include "cli/job_text.h"
#include "cli/outcome.h"
#include "cli/plan_text.h"
#include "cli/progress.h"
#include "cli/submission.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

constexpr auto kLookAtJob = std::chrono::milliseconds(50);

// The run of one job file in one work folder.
class Run {
 public:
  Run(const Invocation& invocation, const RunOptions& options, JobFile file,
      EmbeddedCluster& cluster)
      : invocation_(invocation),
        options_(options),
        file_(std::move(file)),
        cluster_(cluster),
        stop_(*invocation.interrupts) {}

  int Execute() {
    if (const Status status = cluster_.StartCoordinator(stop_.asked()); !status.ok())
      return Fail(status);
    if (stop_.asked()) return TellHowToGoOn();
    client_.emplace(cluster_.server());
    auto job = SubmitOnce(*client_, file_.parsed.spec, "run", cluster_.work());
    if (!job.ok()) return Refused(job.status());
    if (IsTerminal(job->state())) return Tell(*job);
    if (const Status status = CancelOthers(*client_, {job->uid()}); !status.ok())
      return Fail(status);
    const int64_t slots = Resolve(file_.parsed.spec).parallelism().data();
    if (const Status status = cluster_.StartWorker(slots, options_.threads); !status.ok())
      return Fail(status);
    PrintErr("job " + ShortName(job->name()) + " in " + cluster_.work() +
             (job->epoch() > 0 ? ": going on\n" : "\n"));
    return FollowJob(job->name());
  }

 private:
  // The main thread keeps the cluster running (children die with the thread that started them);
  // another one watches.
  int FollowJob(const std::string& name) {
    ProgressPrinter progress = StderrProgress();
    progress.HideReason("NO_WORKER");
    progress.ShowPlan(
        [this](const v1::Job& job) { return PlanTextOfJob(cluster_.work(), job.uid()); });
    Follower follower(*client_, progress, /*patience_ms=*/0);
    Result<v1::Job> result = Status(Code::kUnknown, "not followed");
    std::atomic<bool> followed = false;
    std::thread watcher([&] {
      result = follower.Run(name);
      followed = true;
    });
    const Status status = Supervise(followed);
    follower.Stop();
    watcher.join();
    progress.Finish();
    if (result.ok()) return Tell(*result);
    if (!status.ok()) return Fail(status);
    return stop_.asked() ? TellHowToGoOn() : Fail(result.status());
  }

  // Until the job has ended, or Ctrl-C has stopped the worker.
  Status Supervise(const std::atomic<bool>& followed) {
    const auto note = [](const std::string& line) { PrintErr("\n" + line + "\n"); };
    while (!followed) {
      TANDEM_ASSIGN_OR_RETURN(const bool goes_on, cluster_.Tend(stop_.asked(), note));
      if (!goes_on) break;
      std::this_thread::sleep_for(kLookAtJob);
    }
    return Status::Ok();
  }

  int Tell(const v1::Job& job) {
    return TellOutcome(job, invocation_.format, options_.require_verdict,
                       LogOfFailure(cluster_.work(), job.uid()));
  }

  int Refused(const Status& status) {
    if (status.code() != Code::kInvalidArgument) return Fail(status);
    PrintErr(FaultLines(file_.path, FaultsOfMessage(status.message(), file_.parsed)));
    return kExitUsage;
  }

  int TellHowToGoOn() {
    PrintErr("stopped. To go on:  " + ShellWords(invocation_.words) + "\n");
    return kExitInterrupted;
  }

  const Invocation& invocation_;
  const RunOptions& options_;
  const JobFile file_;
  EmbeddedCluster& cluster_;
  StopRequest stop_;
  std::optional<Client> client_;
};

}  // namespace

int RunJob(Invocation& invocation, const RunOptions& options, JobFile file) {
  if (const auto faults = FaultsHere(file.parsed); !faults.empty()) {
    PrintErr(FaultLines(file.path, faults));
    return kExitUsage;
  }
  const auto cluster = EmbeddedCluster::Open(options.work, options.full_disk_seconds);
  if (!cluster.ok()) return Fail(cluster.status());
  return Run(invocation, options, std::move(file), **cluster).Execute();
}

void AddRun(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<RunOptions>();
  CLI::App* verb = AddVerb(app, invocation, "run",
                           "Run a job file here, with a coordinator and a worker of its own");
  verb->add_option("file", options->file, "Job file; - for stdin")
      ->required()
      ->type_name("JOB.yaml");
  verb->add_option("--work", options->work, "Folder for everything that the run writes")
      ->type_name("DIR")
      ->capture_default_str();
  verb->add_option("--threads", options->threads, "CPU threads per rank; default: cores / ranks")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->type_name("N");
  AddFullDiskSeconds(*verb, options->full_disk_seconds);
  AddRequireVerdict(*verb, options->require_verdict);
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] {
      auto file = ReadJobFile(options->file);
      return file ? RunJob(invocation, *options, std::move(*file)) : kExitUsage;
    };
  });
}

}  // namespace tandem::cli
