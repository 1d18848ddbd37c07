// tandem sweep: several variants of a conversion, one after the other or as slots allow, and their
// comparison. Running it again goes on where it stopped.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/files.h"
#include "cli/client.h"
#include "cli/compared_job.h"
#include "cli/comparison.h"
#include "cli/comparison_output.h"
#include "cli/embedded.h"
#include "cli/exit_code.h"
#include "cli/job_file.h"
#include "cli/job_text.h"
#include "cli/outcome.h"
#include "cli/submission.h"
#include "cli/sweep_file.h"
#include "cli/sweep_progress.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

constexpr auto kLookAtRuns = std::chrono::milliseconds(300);
constexpr int64_t kAwayPatienceMs = 600'000;  // a cluster's coordinator may be away that long

struct SweepOptions {
  std::string file;
  std::string work = "work";
  std::string coordinator;
  int64_t threads = 0;
  int64_t full_disk_seconds = 60;
  bool dry_run = false;
  ComparisonOutput output;
};

class Sweep {
 public:
  // cluster: null where the jobs go to options.coordinator.
  Sweep(const Invocation& invocation, const SweepOptions& options, SweepFile file,
        EmbeddedCluster* cluster)
      : invocation_(invocation),
        options_(options),
        file_(std::move(file)),
        cluster_(cluster),
        work_(cluster != nullptr ? cluster->work() : ""),
        stop_(*invocation.interrupts),
        progress_(StderrIsTerminal(), StyleOfStderr(), Clock::System(), PrintErr) {}

  int Execute() {
    if (const Status status = Start(); !status.ok()) return Fail(status);
    if (stop_.asked()) return TellHowToGoOn();
    if (file_.control) {
      if (const Status status = RunAll({*file_.control}); !status.ok()) return Fail(status);
      if (stop_.asked()) return TellHowToGoOn();
      UseControl();
    }
    if (const Status status = RunAll(file_.runs); !status.ok()) return Fail(status);
    return stop_.asked() ? TellHowToGoOn() : Tell();
  }

 private:
  Status Start() {
    if (cluster_ != nullptr) TANDEM_RETURN_IF_ERROR(cluster_->StartCoordinator(stop_.asked()));
    if (stop_.asked()) return Status::Ok();
    client_.emplace(cluster_ != nullptr ? cluster_->server() : options_.coordinator);
    return Status::Ok();
  }

  // The trained control's report is what the other jobs are judged against.
  void UseControl() {
    const v1::Job& control = lines_.front().job;
    if (control.state() != v1::JOB_STATE_SUCCEEDED) {
      progress_.Note("the control has no report: the others are not judged against it");
      return;
    }
    const auto folder = std::filesystem::path(control.report_path()).parent_path();
    for (auto& run : file_.runs)
      run.parsed.spec.mutable_evaluate()->set_control((folder / "artifacts/report.json").string());
  }

  // Submits all of them, and follows them to their ends.
  Status RunAll(const std::vector<SweepRun>& runs) {
    const size_t first = lines_.size();
    for (const auto& run : runs) {
      auto job = SubmitOnce(*client_, run.parsed.spec, "sweep", work_);
      if (!job.ok()) return job.status().WithContext("run " + run.name);
      lines_.push_back({run.name, std::move(*job)});
    }
    if (AllEnded()) return Status::Ok();
    if (cluster_ != nullptr) TANDEM_RETURN_IF_ERROR(StartWorker());
    progress_.Show(lines_);
    return Follow(first);
  }

  Status StartWorker() {
    std::set<std::string> own;
    int64_t slots = 1;
    for (const auto& line : lines_) own.insert(line.job.uid());
    for (const auto& run : file_.runs)
      slots = std::max(slots, Resolve(run.parsed.spec).parallelism().data());
    TANDEM_RETURN_IF_ERROR(CancelOthers(*client_, own));
    return cluster_->StartWorker(slots, options_.threads);
  }

  bool AllEnded() const {
    return std::ranges::all_of(lines_,
                               [](const SweepLine& l) { return IsTerminal(l.job.state()); });
  }

  // One thread asks for every job in turn and keeps the cluster running.
  Status Follow(size_t first) {
    const Clock& clock = Clock::System();
    int64_t answered_ms = clock.MonotonicMs();
    while (!AllEnded()) {
      TANDEM_ASSIGN_OR_RETURN(const bool goes_on, TendCluster());
      if (!goes_on) break;
      const Status asked = Ask(first);
      if (asked.ok()) answered_ms = clock.MonotonicMs();
      const bool is_away = clock.MonotonicMs() - answered_ms > kAwayPatienceMs;
      if (!asked.ok() && cluster_ == nullptr && is_away) return asked;
      std::this_thread::sleep_for(kLookAtRuns);
    }
    return Status::Ok();
  }

  // False: the jobs are not followed any longer.
  Result<bool> TendCluster() {
    if (cluster_ == nullptr) return !stop_.asked();
    return cluster_->Tend(stop_.asked(), [this](const std::string& line) { progress_.Note(line); });
  }

  Status Ask(size_t first) {
    for (size_t i = first; i < lines_.size(); ++i) {
      if (IsTerminal(lines_[i].job.state())) continue;
      auto job = client_->GetJob(lines_[i].job.name());
      if (!job.ok()) return job.status();
      lines_[i].job = std::move(*job);
    }
    if (!stop_.asked()) progress_.Show(lines_);
    return Status::Ok();
  }

  // The comparison of what succeeded, and what did not.
  int Tell() {
    std::vector<ComparedJob> jobs;
    bool failed = false;
    for (const auto& [name, job] : lines_) {
      if (job.state() != v1::JOB_STATE_SUCCEEDED) {
        failed = true;
        TellFailure(name, job);
        continue;
      }
      auto compared = Compared(job);
      if (!compared.ok()) return Fail(compared.status());
      compared->name = name;
      jobs.push_back(std::move(*compared));
    }
    if (!jobs.empty()) {
      const Status given = GiveComparison(ComparisonJson(jobs), options_.output);
      if (!given.ok()) return Fail(given);
      if (options_.output.format == "table" && !work_.empty())
        PrintErr("again, at any time:  tandem compare " + ShellWords({options_.work}) + "\n");
    }
    return failed ? kExitJobFailed : kExitOk;
  }

  // From the files where they are here, else through the coordinator.
  Result<ComparedJob> Compared(const v1::Job& job) {
    if (work_.empty()) return FetchJob(*client_, job.name());
    TANDEM_ASSIGN_OR_RETURN(auto found, ReadJobs(work_ + "/jobs/" + job.uid()));
    return std::move(found.front());
  }

  void TellFailure(const std::string& name, const v1::Job& job) {
    const std::string log =
        work_.empty() ? "tandem logs " + ShortName(job.name()) + " --server " + options_.coordinator
                      : LogOfFailure(work_, job.uid());
    PrintError(FailureText("run " + name, job, log));
  }

  int TellHowToGoOn() {
    PrintErr((cluster_ != nullptr ? "stopped. To go on:  "
                                  : "detached; the jobs go on. To follow them:  ") +
             ShellWords(invocation_.words) + "\n");
    return kExitInterrupted;
  }

  const Invocation& invocation_;
  const SweepOptions& options_;
  SweepFile file_;
  EmbeddedCluster* const cluster_;  // null: on a cluster that somebody else runs
  const std::string work_;          // empty: there
  StopRequest stop_;
  std::optional<Client> client_;
  std::vector<SweepLine> lines_;  // the control first
  SweepProgress progress_;
};

using Look = std::vector<Violation> (*)(const ParsedSpec&);

// look: what of a run is looked at beyond the file itself; null: nothing.
std::optional<SweepFile> ReadFileOfSweep(const std::string& path, Look look) {
  const auto text = ReadFile(path, kMaxSpecBytes);
  if (!text.ok()) {
    PrintError("cannot read the sweep file: " + text.status().message());
    return std::nullopt;
  }
  SweepOutcome outcome =
      ReadSweep(*text, std::filesystem::path(AbsolutePath(path)).parent_path().string());
  if (outcome.violations.empty() && look != nullptr) {
    std::vector<RunFaults> faults;
    for (const auto& run : outcome.sweep.runs) faults.push_back({run.name, look(run.parsed)});
    outcome.violations = MergedFaults(faults);
  }
  if (!outcome.violations.empty()) {
    PrintErr(FaultLines(path, outcome.violations));
    return std::nullopt;
  }
  return std::move(outcome.sweep);
}

int RunSweep(Invocation& invocation, const SweepOptions& options) {
  const bool here = options.coordinator.empty();
  const Look look = options.dry_run ? FaultsOfPaths : FaultsHere;
  auto file = ReadFileOfSweep(options.file, here ? look : nullptr);
  if (!file) return kExitUsage;
  if (options.dry_run) {
    for (const auto& run : file->runs) PrintOut(run.name + "\n");
    PrintErr(options.file + " is valid: " + std::to_string(file->runs.size()) + " runs" +
             (file->control ? ", and the trained control first\n" : "\n"));
    return kExitOk;
  }
  if (!here) return Sweep(invocation, options, std::move(*file), nullptr).Execute();
  const auto cluster = EmbeddedCluster::Open(options.work, options.full_disk_seconds);
  if (!cluster.ok()) return Fail(cluster.status());
  return Sweep(invocation, options, std::move(*file), cluster->get()).Execute();
}

}  // namespace

void AddSweep(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<SweepOptions>();
  CLI::App* verb = AddComparisonVerb(
      app, "sweep", "Run several variants of a conversion, and compare them", options->output);
  verb->add_option("file", options->file, "Sweep file: base, runs, controls")
      ->required()
      ->type_name("SWEEP.yaml");
  verb->add_option("--work", options->work, "Folder for everything that the runs write")
      ->type_name("DIR")
      ->capture_default_str();
  verb->add_option("--coordinator", options->coordinator,
                   "Submit to this cluster, instead of a coordinator and a worker here")
      ->type_name("HOST:PORT");
  verb->add_option("--threads", options->threads, "CPU threads per rank; default: cores / ranks")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->type_name("N");
  AddFullDiskSeconds(*verb, options->full_disk_seconds);
  verb->add_flag("--dry-run", options->dry_run, "Only check every job of the file");
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return RunSweep(invocation, *options); };
  });
}

}  // namespace tandem::cli
