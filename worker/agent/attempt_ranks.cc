// Attempt, the part that listens to the ranks: what they say over their socket, and what their end
// means.
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "worker/agent/attempt.h"
#include "worker/agent/attempt_files.h"

namespace tandem::agent {

void Attempt::OnRankMessage(const RankMessage& message) {
  const int64_t now = tools_.clock.MonotonicMs();
  gang_end_.said_hello = true;
  if (message.type == "hello") return progress_.Touch(now);
  if (message.type == "progress") {
    if (message.rank != 0) return;
    progress_.Take(message, now);
    NotifyChanged();
  } else if (message.type == "event") {
    OnRankEvent(message);
  } else if (message.type == "checkpoint") {
    OnCheckpoint(message);
  } else if (message.type == "fatal") {
    Log(LogLevel::kWarning, "rank_fatal",
        {{"uid", ref().job_uid()},
         {"epoch", ref().epoch()},
         {"rank", message.rank},
         {"kind", message.kind}});
    const bool tells_more =
        gang_end_.fatal_kind.empty() || gang_end_.fatal_kind == "COLLECTIVE_ERROR";
    if (!tells_more) return;
    gang_end_.fatal_kind = message.kind;
    gang_end_.fatal_text = "rank " + std::to_string(message.rank) + ": " + message.text;
  }
}

void Attempt::OnRankEvent(const RankMessage& message) {
  progress_.Touch(tools_.clock.MonotonicMs());
  if (message.kind == "stage_started") {
    progress_.Take(message, tools_.clock.MonotonicMs());
    NotifyChanged();
  } else if (message.kind == "stage_committed") {
    v1::ChannelRequest request;
    v1::StageCommitted& stage = *request.mutable_stage();
    *stage.mutable_attempt() = ref();
    stage.set_stage(message.stage);
    stage.set_stage_index(message.stage_index + 1);
    stage.set_output_sha256(TextOf(message.data, "output_sha256"));
    listener_.committed(std::move(request));
  } else if (message.kind == "report") {
    const auto report = ReadComponentReport(JoinPath(job_folder_, "artifacts/report.json"));
    if (report.ok()) *end_.mutable_report() = *report;  // for the metrics; read again at the end
  }
}

void Attempt::OnCheckpoint(const RankMessage& message) {
  progress_.Checkpointed(message.step, tools_.clock.MonotonicMs());
  end_.set_resumable(true);
  v1::ChannelRequest request;
  v1::CheckpointCommitted& checkpoint = *request.mutable_checkpoint();
  *checkpoint.mutable_attempt() = ref();
  checkpoint.set_stage_index(message.stage_index + 1);
  checkpoint.set_step(message.step);
  checkpoint.set_directory(TextOf(message.data, "directory"));
  checkpoint.set_manifest_sha256(TextOf(message.data, "manifest_sha256"));
  checkpoint.set_bytes(IntegerOf(message.data, "bytes"));
  listener_.committed(std::move(request));
}

void Attempt::OnGangEnd(ChildExit exit) {
  gang_ = 0;
  if (phase_ != Phase::kRunning) return;  // it was killed, and sweeping notices
  gang_end_.exit = exit;
  socket_->ReadRest();  // what the ranks said last
  socket_.reset();
  if (exit.code == 0) return MakeReport();
  gang_end_.last_lines = LastErrorLines(attempt_folder_);
  EndCause cause = CauseOf(gang_end_);
  if (cause.cause == "STOPPED" && !stop_reason_.empty()) cause.detail = stop_reason_;
  Finish(cause.cause, cause.detail);
}

bool Attempt::ReadReport() {
  const std::string path = JoinPath(job_folder_, "artifacts/report.json");
  const auto report = ReadComponentReport(path);
  if (!report.ok()) {
    Finish("RANK_EXIT",
           "the ranks left with code 0 without a report: " + report.status().message());
    return false;
  }
  *end_.mutable_report() = *report;
  if (launch_.spec().recipe() == "diagnose") return true;  // it exports nothing
  const std::string model = JoinPath(job_folder_, "artifacts/model");
  if (!PathExists(JoinPath(model, "config.json"))) {
    Finish("RANK_EXIT", "the ranks left with code 0 without a model in " + model);
    return false;
  }
  end_.set_artifact(model);
  return true;
}

}  // namespace tandem::agent
