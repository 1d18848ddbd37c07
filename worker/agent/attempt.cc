#include "worker/agent/attempt.h"

#include <csignal>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "spec/spec.h"
#include "worker/agent/attempt_files.h"
#include "worker/agent/marked_processes.h"
#include "worker/agent/plan_builder.h"
#include "worker/plan/checkpoint_manifest.h"

namespace tandem::agent {
namespace {

// Prepare says something each second or so; one huge document may take minutes.
constexpr int64_t kPrepareSilenceFactor = 10;
constexpr int64_t kReportMs = 120'000;

}  // namespace

Attempt::Attempt(const AttemptConfig& config, AttemptTools tools, v1::Launch launch,
                 int64_t scratch_number, Listener listener)
    : config_(config),
      tools_(tools),
      launch_(std::move(launch)),
      listener_(std::move(listener)),
      job_folder_(JoinPath(config.jobs_folder, launch_.attempt().job_uid())),
      attempt_folder_(
          JoinPath(job_folder_, "attempts/" + std::to_string(launch_.attempt().epoch()))),
      scratch_folder_(JoinPath(config.runtime, "a" + std::to_string(scratch_number))),
      mark_(AttemptMark(config.worker_folder, launch_.attempt().job_uid(),
                        launch_.attempt().epoch())),
      progress_(launch_.spec().stages_size(), tools.clock.MonotonicMs()) {
  *end_.mutable_attempt() = launch_.attempt();
}

Attempt::~Attempt() = default;

std::string Attempt::FileOf(const std::string& name) const {
  return JoinPath(attempt_folder_, name);
}

template <typename T>
void Attempt::InBackground(std::function<T()> work, std::function<void(T)> then) {
  const Phase phase = phase_;
  const bool queued = tools_.errands.Run([weak = weak_from_this(), &loop = tools_.loop, phase,
                                          work = std::move(work), then = std::move(then)] {
    loop.Post([weak, phase, then, result = work()] {
      const auto self = weak.lock();
      if (self && self->phase_ == phase) then(result);
    });
  });
  if (!queued) Finish("LAUNCH_FAILED", "the worker has too much file work waiting");
}

Status Attempt::MakeAttemptFolders() const {
  if (PathExists(attempt_folder_)) {
    return AlreadyExists("attempt folder " + attempt_folder_ +
                         " exists: this epoch was started before and is not started twice");
  }
  for (const std::string& folder : {attempt_folder_, scratch_folder_}) {
    TANDEM_RETURN_IF_ERROR(MakeFolders(folder));
  }
  return Status::Ok();
}

void Attempt::Begin() {
  started_ms_ = tools_.clock.MonotonicMs();
  progress_.Touch(started_ms_);
  Log(LogLevel::kInfo, "attempt_started",
      {{"job", job_name()}, {"uid", ref().job_uid()}, {"epoch", ref().epoch()}});
  const Status made = MakeAttemptFolders();
  if (!made.ok()) return Finish("LAUNCH_FAILED", made.ToString());
  Inspect();
}

void Attempt::Inspect() {
  phase_ = Phase::kInspecting;
  InBackground<std::vector<Violation>>(
      [spec = launch_.spec()] { return InspectPaths(spec); },
      [this](const std::vector<Violation>& violations) {
        violations.empty() ? Prepare() : Finish("DATA", ViolationsToText(violations));
      });
}

PythonCommand Attempt::PythonCommandFor(const std::string& name, const std::string& module) const {
  return {.name = name,
          .python = config_.python,
          .python_path = config_.python_path,
          .module = module,
          .arguments = {},
          .attempt_folder = attempt_folder_,
          .mark = mark_,
          .threads = config_.threads_per_slot};
}

void Attempt::Prepare() {
  phase_ = Phase::kPreparing;
  const std::string request = FileOf("prepare.json");
  Status made = MakeFolders(config_.cache_folder);
  if (made.ok())
    made = WriteFileDurably(request, PrepareRequest(launch_.spec(), config_.cache_folder));
  if (!made.ok()) return Finish("STORAGE", made.ToString());
  PythonCommand command = PythonCommandFor("prepare", "tandem.prepare");
  command.arguments = {"--request", request};
  auto step = PythonStep::Start(
      tools_.loop, tools_.children, command,
      [this](const std::string& line) { OnPrepareLine(line); },
      [this](ChildExit exit) { OnPrepareDone(exit); });
  if (!step.ok()) return Finish("PREPARE_FAILED", step.status().ToString());
  python_ = std::move(*step);
  NotifyChanged();
}

void Attempt::OnPrepareLine(const std::string& line) {
  const int64_t now = tools_.clock.MonotonicMs();
  const PrepareLine said = ParsePrepareLine(line);
  if (!said.tokens_folder.empty()) tokens_ = said.tokens_folder;
  if (!said.error.empty()) prepare_error_ += (prepare_error_.empty() ? "" : "\n") + said.error;
  progress_.Prepared(said.documents, now);
  NotifyChanged();
}

void Attempt::OnPrepareDone(ChildExit exit) {
  python_.reset();
  if (exit.code == 2 && !prepare_error_.empty()) return Finish("DATA", prepare_error_);
  if (exit.code != 0 || tokens_.empty()) {
    const std::string lines = LastLines(FileOf("prepare.err"));
    return Finish("PREPARE_FAILED", "the data preparation " + exit.ToString() +
                                        (lines.empty() ? " and named no result" : ": " + lines));
  }
  ChooseCheckpoint();
}

void Attempt::ChooseCheckpoint() {
  phase_ = Phase::kPlanning;
  using Choice = Result<std::optional<std::string>>;
  InBackground<std::shared_ptr<Choice>>(
      [folder = job_folder_, epoch = ref().epoch(), digest = SpecSha256(launch_.spec())] {
        std::vector<std::string> quarantined;
        auto choice =
            std::make_shared<Choice>(FindNewestCheckpoint(folder, digest, epoch, &quarantined));
        for (const std::string& bad : quarantined) {
          Log(LogLevel::kError, "checkpoint_quarantined", {{"directory", bad}});
        }
        return choice;
      },
      [this](const std::shared_ptr<Choice>& choice) {
        if (!choice->ok()) return Finish("STORAGE", choice->status().ToString());
        StartRanks(choice->value().value_or(""));
      });
}

void Attempt::StartRanks(const std::string& resume_from) {
  const std::string socket_path = JoinPath(scratch_folder_, "agent.sock");
  const PlanContext context = {.job_uid = ref().job_uid(),
                               .job_name = job_name(),
                               .epoch = ref().epoch(),
                               .job_folder = job_folder_,
                               .attempt_folder = attempt_folder_,
                               .socket = socket_path,
                               .tokens = tokens_,
                               .resume_from = resume_from,
                               .export_classes = JoinPath(config_.python_path, "hybrid_linear"),
                               .stage_cache = config_.stage_cache,
                               .threads_per_slot = config_.threads_per_slot};
  const auto plan = BuildPlan(launch_.spec(), context);
  if (!plan.ok()) return Finish("BAD_PLAN", plan.status().message());
  const std::string plan_path = FileOf("plan.json");
  const Status written = WriteFileDurably(plan_path, PlanToJson(*plan));
  if (!written.ok()) return Finish("STORAGE", written.ToString());
  auto socket = RankSocket::Listen(tools_.loop, socket_path, ref().epoch(),
                                   [this](const RankMessage& message) { OnRankMessage(message); });
  if (!socket.ok()) return Finish("LAUNCH_FAILED", socket.status().ToString());
  socket_ = std::move(*socket);
  const auto on_exit = [weak = weak_from_this()](ChildExit exit) {
    if (const auto self = weak.lock()) self->OnGangEnd(exit);
  };
  const auto gang = tools_.launcher.Start({.plan_path = plan_path,
                                           .attempt_folder = attempt_folder_,
                                           .scratch_folder = scratch_folder_,
                                           .mark = mark_,
                                           .ranks = plan->ranks,
                                           .threads_per_rank = plan->threads_per_rank},
                                          on_exit);
  if (!gang.ok()) return Finish("LAUNCH_FAILED", gang.status().ToString());
  gang_ = *gang;
  phase_ = Phase::kRunning;
  end_.set_resumable(!resume_from.empty());
  progress_.Touch(tools_.clock.MonotonicMs());
  Log(LogLevel::kInfo, "ranks_started",
      {{"uid", ref().job_uid()},
       {"epoch", ref().epoch()},
       {"ranks", plan->ranks},
       {"resume_from", resume_from}});
  NotifyChanged();
}

void Attempt::MakeReport() {
  phase_ = Phase::kReporting;
  started_ms_ = tools_.clock.MonotonicMs();
  if (!ReadReport()) return;
  const std::string page = JoinPath(job_folder_, "report.html");
  PythonCommand command = PythonCommandFor("report", "tandem.report");
  command.arguments = {"--job", job_folder_, "--out", page};
  auto step = PythonStep::Start(tools_.loop, tools_.children, command, nullptr,
                                [this](ChildExit exit) { OnReportDone(exit); });
  if (!step.ok()) return Finish("REPORT_FAILED", step.status().ToString());
  python_ = std::move(*step);
  end_.set_report_path(page);
  NotifyChanged();
}

void Attempt::OnReportDone(ChildExit exit) {
  python_.reset();
  if (exit.code == 0 && PathExists(end_.report_path())) return Finish("OK", "");
  Finish("REPORT_FAILED", "the report " + exit.ToString() + ": " + LastLines(FileOf("report.err")));
}

void Attempt::StopWithCheckpoint(const std::string& reason) {
  if (phase_ == Phase::kReporting || phase_ >= Phase::kSweeping) return;
  if (phase_ != Phase::kRunning) return Finish("STOPPED", reason);
  if (stop_deadline_ms_ != 0) return;
  stop_reason_ = reason;
  stop_deadline_ms_ = tools_.clock.MonotonicMs() + config_.stop_ms;
  Log(LogLevel::kInfo, "attempt_stopping",
      {{"uid", ref().job_uid()}, {"epoch", ref().epoch()}, {"reason", reason}});
  socket_->SendAction("checkpoint_stop");
}

void Attempt::Finish(const std::string& cause, const std::string& detail) {
  if (phase_ >= Phase::kSweeping) return;
  phase_ = Phase::kSweeping;
  end_.set_cause(cause);
  end_.set_detail(detail);
  if (cause != "OK") {
    end_.clear_report();
    end_.clear_artifact();
    end_.clear_report_path();
  }
  python_.reset();
  if (gang_ != 0) tools_.launcher.Kill(gang_);
  socket_.reset();
  Tick();
}

void Attempt::Tick() {
  if (phase_ != Phase::kSweeping) return CheckDeadlines();
  if (KillMarked(mark_) > 0 || gang_ != 0) return;
  PublishEnd();
}

void Attempt::CheckDeadlines() {
  const int64_t now = tools_.clock.MonotonicMs();
  const int64_t silent = now - progress_.moved_ms();
  if (phase_ == Phase::kRunning) {
    if (stop_deadline_ms_ != 0 && now >= stop_deadline_ms_) {
      Finish("STOPPED", stop_reason_ + "; no checkpoint within the time allowed");
    } else if (silent >= config_.hang_ms) {
      Finish("HANG", "no progress for " + std::to_string(silent / 1000) + " s in stage " +
                         progress_.value().stage() + " at step " +
                         std::to_string(progress_.value().step()));
    }
  } else if (phase_ == Phase::kPreparing && silent >= kPrepareSilenceFactor * config_.hang_ms) {
    Finish("PREPARE_FAILED",
           "the data preparation said nothing for " + std::to_string(silent / 1000) + " s");
  } else if (phase_ == Phase::kReporting && now - started_ms_ >= kReportMs) {
    Finish("REPORT_FAILED", "the report was not made within 120 s");
  }
}

void Attempt::RemoveScratch() const {
  const Status removed = RemoveTree(scratch_folder_);
  if (!removed.ok()) Log(LogLevel::kWarning, "scratch_left", {{"reason", removed.message()}});
}

void Attempt::PublishEnd() {
  phase_ = Phase::kEnded;
  RemoveScratch();
  Log(end_.cause() == "OK" || end_.cause() == "STOPPED" ? LogLevel::kInfo : LogLevel::kWarning,
      "attempt_ended",
      {{"uid", ref().job_uid()}, {"epoch", ref().epoch()}, {"cause", end_.cause()}});
  listener_.ended(CurrentStatus());
}

v1::AttemptStatus Attempt::CurrentStatus() const {
  v1::AttemptStatus status;
  if (phase_ == Phase::kEnded) status = end_;
  *status.mutable_attempt() = ref();
  *status.mutable_progress() = progress_.value();
  status.set_resumable(end_.resumable());
  const bool launching = phase_ == Phase::kWaiting || phase_ == Phase::kInspecting;
  status.set_phase(phase_ == Phase::kEnded ? v1::ATTEMPT_PHASE_ENDED
                   : launching             ? v1::ATTEMPT_PHASE_LAUNCHING
                                           : v1::ATTEMPT_PHASE_RUNNING);
  return status;
}

AttemptGauges Attempt::Gauges() const {
  AttemptGauges gauges;
  const v1::JobProgress& progress = progress_.value();
  gauges.step_seconds = progress.step_seconds();
  gauges.loss = progress.loss();
  gauges.tokens_per_second = progress.tokens_per_second();
  gauges.step = static_cast<double>(progress.step());
  gauges.training = phase_ == Phase::kRunning && progress_.is_training();
  if (phase_ == Phase::kRunning) {
    const int64_t since = progress_.checkpoint_ms() > 0 ? progress_.checkpoint_ms() : started_ms_;
    gauges.checkpoint_age_seconds = static_cast<double>(tools_.clock.MonotonicMs() - since) / 1000;
  }
  gauges.evaluated = end_.has_report();
  gauges.linear_capability = end_.report().linear_capability();
  return gauges;
}

}  // namespace tandem::agent
