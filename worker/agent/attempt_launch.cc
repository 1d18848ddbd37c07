// Attempt, the part before its ranks run: looks at the paths, prepares the data, chooses the
// checkpoint to go on from, makes the plan, starts mpirun.
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "spec/spec.h"
#include "worker/agent/attempt.h"
#include "worker/agent/attempt_files.h"
#include "worker/agent/plan_builder.h"
#include "worker/plan/checkpoint_manifest.h"

namespace tandem::agent {

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

void Attempt::Begin() {
  started_ms_ = tools_.clock.MonotonicMs();
  progress_.Touch(started_ms_);
  Log(LogLevel::kInfo, "attempt_started",
      {{"job", job_name()}, {"uid", ref().job_uid()}, {"epoch", ref().epoch()}});
  Status ready = TakeGpus();
  if (ready.ok()) ready = MakeAttemptFolders();
  if (!ready.ok()) return Finish("LAUNCH_FAILED", ready.ToString());
  Inspect();
}

Status Attempt::TakeGpus() {
  const auto& parallelism = launch_.spec().parallelism();
  if (parallelism.device() != "cuda") return Status::Ok();
  TANDEM_ASSIGN_OR_RETURN(gpus_, tools_.gpus.Take(parallelism.data()));
  return Status::Ok();
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

void Attempt::Inspect() {
  phase_ = Phase::kInspecting;
  InBackground<std::vector<Violation>>(
      [spec = launch_.spec()] { return InspectPaths(spec); },
      [this](const std::vector<Violation>& violations) {
        violations.empty() ? Prepare() : Finish("DATA", ViolationsToText(violations));
      });
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
                                           .gpus = gpus_,
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
       {"gpus", GpuText(gpus_)},
       {"resume_from", resume_from}});
  NotifyChanged();
}

}  // namespace tandem::agent
