// tandem run: a whole cluster for one job, in one command. Running it again goes on where it
// stopped.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "cli/client.h"
#include "cli/embedded.h"
#include "cli/exit_code.h"
#include "cli/follow.h"
#include "cli/job_file.h"
#include "cli/job_text.h"
#include "cli/outcome.h"
#include "cli/progress.h"
#include "cli/submission.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

constexpr auto kLook = std::chrono::milliseconds(50);
constexpr int64_t kDrainPatienceMs = 90'000;  // above the worker's own 60 s

// The run of one job file in one work folder.
class Run {
 public:
  Run(Invocation& invocation, const RunOptions& options, JobFile file, std::string work,
      std::string bin)
      : invocation_(invocation),
        options_(options),
        file_(std::move(file)),
        work_(work),
        cluster_(std::move(work), std::move(bin)) {}

  int Execute() {
    if (const Status status = lock_.Take(work_); !status.ok()) return Fail(status);
    invocation_.interrupts->Set([this](int count) {
      if (count > 1) _exit(kExitInterrupted);  // the children die with us
      interrupted_ = true;
    });
    const int code = Conduct();
    invocation_.interrupts->Set(nullptr);
    cluster_.Stop();
    return code;
  }

 private:
  int Conduct() {
    if (const Status status = cluster_.StartCoordinator(interrupted_); !status.ok())
      return Fail(status);
    if (interrupted_) return TellHowToGoOn();
    client_.emplace(cluster_.server());
    auto job = SubmitOnce(*client_, file_.parsed.spec, "run", work_);
    if (!job.ok()) return Refused(job.status());
    if (IsTerminal(job->state())) return Tell(*job);
    if (const Status status = CancelOthers(*client_, {job->uid()}); !status.ok())
      return Fail(status);
    const int64_t slots = Resolve(file_.parsed.spec).parallelism().data();
    const int64_t threads =
        options_.threads > 0 ? options_.threads : std::max<int64_t>(1, UsableCores() / slots);
    if (const Status status = cluster_.StartWorker(slots, threads); !status.ok())
      return Fail(status);
    PrintErr("job " + ShortName(job->name()) + " in " + work_ +
             (job->epoch() > 0 ? ": going on\n" : "\n"));
    return FollowJob(job->name());
  }

  // The main thread keeps the cluster running (children die with the thread that started them);
  // another one watches.
  int FollowJob(const std::string& name) {
    ProgressPrinter progress = StderrProgress();
    progress.HideReason("NO_WORKER");
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
    return interrupted_ ? TellHowToGoOn() : Fail(result.status());
  }

  // Until the job has ended, or Ctrl-C has stopped the worker.
  Status Supervise(const std::atomic<bool>& followed) {
    std::optional<int64_t> give_up;
    while (!followed) {
      TANDEM_RETURN_IF_ERROR(cluster_.KeepRunning());
      if (interrupted_ && !give_up) {
        PrintErr("\nstopping: the worker saves a checkpoint first (Ctrl-C again: at once)\n");
        cluster_.DrainWorker();
        give_up = Clock::System().MonotonicMs() + kDrainPatienceMs;
      }
      if (give_up && (!cluster_.IsWorkerRunning() || Clock::System().MonotonicMs() > *give_up))
        break;
      std::this_thread::sleep_for(kLook);
    }
    return Status::Ok();
  }

  int Tell(const v1::Job& job) {
    const int code = TellOutcome(job, invocation_.format, options_.require_verdict);
    if (job.state() == v1::JOB_STATE_FAILED) {
      if (const std::string log = FailedLog(work_, job.uid()); !log.empty()) PrintErr(log);
    }
    return code;
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

  Invocation& invocation_;
  const RunOptions& options_;
  const JobFile file_;
  const std::string work_;
  WorkLock lock_;
  EmbeddedCluster cluster_;
  std::optional<Client> client_;
  std::atomic<bool> interrupted_ = false;
};

}  // namespace

int RunJob(Invocation& invocation, const RunOptions& options, JobFile file) {
  if (const auto faults = FaultsOfPaths(file.parsed); !faults.empty()) {
    PrintErr(FaultLines(file.path, faults));
    return kExitUsage;
  }
  const std::string work = AbsolutePath(options.work);
  if (const Status status = MakeFolders(work); !status.ok())
    return Fail(status.WithContext("--work " + options.work));
  const auto bin = OwnFolder();
  if (!bin.ok()) return Fail(bin.status());
  return Run(invocation, options, std::move(file), work, *bin).Execute();
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
  AddRequireVerdict(*verb, options->require_verdict);
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] {
      auto file = ReadJobFile(options->file);
      return file ? RunJob(invocation, *options, std::move(*file)) : kExitUsage;
    };
  });
}

}  // namespace tandem::cli
