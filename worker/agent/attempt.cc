#include "worker/agent/attempt.h"

#include <limits>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "worker/agent/log_bound.h"
#include "worker/agent/marked_processes.h"

namespace tandem::agent {
namespace {

// Prepare says something each second or so; one huge document may take minutes.
constexpr int64_t kPrepareSilenceFactor = 10;
constexpr int64_t kReportMs = 120'000;
constexpr int64_t kLogLookMs = 2'000;
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

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
  if (phase_ < Phase::kSweeping && phase_ > Phase::kInspecting) BoundLogsSoon();
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

// Errors are said once: the attempt's logs are then left as they are.
void Attempt::BoundLogsSoon() {
  const int64_t now = tools_.clock.MonotonicMs();
  if (now < next_log_look_ms_) return;
  next_log_look_ms_ = now + kLogLookMs;
  tools_.errands.Run([weak = weak_from_this(), &loop = tools_.loop, folder = attempt_folder_,
                      kept_bytes = config_.log_bytes] {
    const Status bounded = BoundLogs(folder, kept_bytes);
    if (bounded.ok()) return;
    loop.Post([weak, bounded] {
      const auto self = weak.lock();
      if (!self || self->next_log_look_ms_ == kNever) return;
      self->next_log_look_ms_ = kNever;
      Log(LogLevel::kWarning, "logs_not_bounded", {{"reason", bounded.ToString()}});
    });
  });
}

void Attempt::RemoveScratch() const {
  const Status removed = RemoveTree(scratch_folder_);
  if (!removed.ok()) Log(LogLevel::kWarning, "scratch_left", {{"reason", removed.message()}});
}

void Attempt::PublishEnd() {
  phase_ = Phase::kEnded;
  RemoveScratch();
  tools_.gpus.Return(gpus_);  // before the coordinator hears that the slots are free
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
