// GetJob, ListJobs, ListEvents: answered from the board, which holds what is durable.
#include <utility>

#include "base/flag_text.h"
#include "coordinator/service/job_names.h"
#include "coordinator/service/job_service.h"
#include "coordinator/service/rich_error.h"

namespace tandem::service {
namespace {

constexpr int kDefaultPage = 50;
constexpr int kMaxPage = 1000;

std::vector<FieldViolation> CheckList(const v1::ListJobsRequest& request) {
  std::vector<FieldViolation> found;
  if (request.page_size() < 0 || request.page_size() > kMaxPage) {
    found.emplace_back("page_size", "page_size is " + std::to_string(request.page_size()) +
                                        "; must be in [1, 1000], or 0 for 50");
  }
  if (!request.project().empty() && !IsName(request.project())) {
    found.emplace_back("project", "project is '" + request.project().substr(0, 200) +
                                      "'; must be 1 to 63 letters, digits, '-', '_' and '.'");
  }
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  if (!request.state().empty() && !v1::JobState_Parse("JOB_STATE_" + request.state(), &state)) {
    found.emplace_back("state", "state is '" + request.state().substr(0, 200) +
                                    "'; must be one of " + AllJobStates() + ", or empty for all");
  }
  return found;
}

}  // namespace

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* JobService::GetJob(grpc::CallbackServerContext* context,
                                             const v1::GetJobRequest* request, v1::Job* job) {
  Result<v1::Job> found = desk_.jobs.Find(request->name());
  if (found.ok()) *job = std::move(*found);
  return FinishNow(context, ToGrpc(found.status()));
}

grpc::ServerUnaryReactor* JobService::ListJobs(grpc::CallbackServerContext* context,
                                               const v1::ListJobsRequest* request,
                                               v1::ListJobsResponse* response) {
  std::vector<FieldViolation> found = CheckList(*request);
  const std::string filter = request->project() + "\n" + request->state();
  int64_t position = 0;
  if (!request->page_token().empty()) {
    const Result<int64_t> opened = desk_.page_tokens.Open(request->page_token(), filter);
    if (opened.ok()) {
      position = *opened;
    } else {
      found.emplace_back("page_token", opened.status().message());
    }
  }
  if (!found.empty()) return FinishNow(context, ToGrpc(found));
  const int size = request->page_size() == 0 ? kDefaultPage : request->page_size();
  JobBoard::Page page =
      desk_.jobs.List(request->project(), request->state(), position, static_cast<size_t>(size));
  for (v1::Job& job : page.jobs) *response->add_jobs() = std::move(job);
  if (page.next_position > 0) {
    response->set_next_page_token(desk_.page_tokens.Sign(page.next_position, filter));
  }
  return FinishNow(context, grpc::Status::OK);
}

grpc::ServerUnaryReactor* JobService::ListEvents(grpc::CallbackServerContext* context,
                                                 const v1::ListEventsRequest* request,
                                                 v1::ListEventsResponse* response) {
  Result<std::vector<v1::JobEvent>> events = desk_.jobs.Events(request->name());
  if (!events.ok()) return FinishNow(context, ToGrpc(events.status()));
  for (v1::JobEvent& event : *events) *response->add_events() = std::move(event);
  return FinishNow(context, grpc::Status::OK);
}

}  // namespace tandem::service
