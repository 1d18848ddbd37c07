// StreamLogs, GetReport: the files lie on the worker; they are read through its agent.
#include <memory>
#include <utility>

#include "coordinator/service/job_names.h"
#include "coordinator/service/job_service.h"
#include "coordinator/service/rich_error.h"

namespace tandem::service {
namespace {

constexpr int64_t kReportAnswerMs = 10'000;
constexpr size_t kMaxReportBytes = 3 << 20;  // clients receive 4 MiB at most

// One GetReport on its way: asks for the file part by part, then answers.
class ReportFetch : public std::enable_shared_from_this<ReportFetch> {
 public:
  ReportFetch(const Desk& desk, v1::Job job, std::string format, v1::GetReportResponse* response,
              grpc::ServerUnaryReactor* reactor)
      : desk_(desk),
        job_(std::move(job)),
        format_(std::move(format)),
        response_(response),
        reactor_(reactor) {}

  void AskFrom(int64_t offset) {
    offset_ = offset;
    v1::ReadLogs question;
    question.set_job_uid(job_.uid());
    question.set_epoch(job_.epoch());
    question.set_offset(offset);
    question.set_report_format(format_);
    desk_.relay.AskLogs(
        job_.worker(), std::move(question), desk_.clock.MonotonicMs() + kReportAnswerMs,
        [self = shared_from_this()](Result<v1::LogChunk> answer) { self->OnPart(answer); });
  }

 private:
  void OnPart(const Result<v1::LogChunk>& answer) {
    if (!answer.ok()) {
      return reactor_->Finish(ToGrpc(answer.status().WithContext(
          "the report of '" + job_.name() + "' lies on its worker at " + job_.report_path())));
    }
    if (!answer->error().empty()) return reactor_->Finish(ToGrpc(NotFound(answer->error())));
    response_->mutable_content()->append(answer->data());
    if (response_->content().size() > kMaxReportBytes) {
      response_->clear_content();
      return reactor_->Finish(ToGrpc(ResourceExhausted(
          "the report of '" + job_.name() + "' is larger than 3 MiB; read it on worker '" +
          job_.worker() + "' at " + job_.report_path())));
    }
    const bool goes_on = !answer->end_of_file() && answer->next_offset() > offset_;
    if (goes_on) return AskFrom(answer->next_offset());
    response_->set_media_type(format_ == "json" ? "application/json" : "text/html");
    reactor_->Finish(grpc::Status::OK);
  }

  const Desk desk_;
  const v1::Job job_;
  const std::string format_;
  v1::GetReportResponse* const response_;
  grpc::ServerUnaryReactor* const reactor_;
  int64_t offset_ = 0;
};

std::vector<FieldViolation> CheckLogs(const v1::StreamLogsRequest& request) {
  std::vector<FieldViolation> found;
  const Status name = CheckJobName(request.name());
  if (!name.ok()) found.emplace_back("name", name.message());
  if (request.epoch() < 0) {
    found.emplace_back("epoch", "epoch is " + std::to_string(request.epoch()) +
                                    "; must be 1 or more, or 0 for the newest");
  }
  if (request.tail_bytes() < 0) {
    found.emplace_back("tail_bytes", "tail_bytes is " + std::to_string(request.tail_bytes()) +
                                         "; must be 0 (from the start) or more");
  }
  const std::string& file = request.file();
  const bool is_log = file.ends_with(".out") || file.ends_with(".err");
  if (!file.empty() && (!is_log || file[0] == '.' || file.find('/') != std::string::npos)) {
    found.emplace_back("file", "file is '" + file.substr(0, 200) +
                                   "'; must be a log in the attempt's folder, as rank-0.err, or "
                                   "empty for all");
  }
  return found;
}

}  // namespace

grpc::ServerWriteReactor<v1::StreamLogsResponse>* JobService::StreamLogs(
    grpc::CallbackServerContext*, const v1::StreamLogsRequest* request) {
  const LogSources sources{desk_.jobs, desk_.relay, desk_.followers, desk_.clock};
  const auto stream = std::make_shared<LogStream>(sources, *request);
  const std::vector<FieldViolation> found = CheckLogs(*request);
  stream->Start(found.empty() ? grpc::Status::OK : ToGrpc(found));
  return stream.get();
}

grpc::ServerUnaryReactor* JobService::GetReport(grpc::CallbackServerContext* context,
                                                const v1::GetReportRequest* request,
                                                v1::GetReportResponse* response) {
  const std::string format = request->format().empty() ? "html" : request->format();
  if (format != "html" && format != "json") {
    return FinishNow(context, ToGrpc(InvalidArgument("format is '" + format.substr(0, 200) +
                                                     "'; must be html or json")));
  }
  Result<v1::Job> job = desk_.jobs.Find(request->name());
  if (!job.ok()) return FinishNow(context, ToGrpc(job.status()));
  if (job->report_path().empty()) {
    return FinishNow(
        context,
        ToGrpc(FailedPrecondition("job '" + job->name() + "' is " + StateName(job->state()) +
                                  " and has no report; one is written when it has succeeded")));
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  std::make_shared<ReportFetch>(desk_, std::move(*job), format, response, reactor)->AskFrom(0);
  return reactor;
}

}  // namespace tandem::service
