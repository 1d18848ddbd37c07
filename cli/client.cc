#include "cli/client.h"

#include <grpcpp/grpcpp.h>
#include <sys/random.h>

#include <chrono>
#include <thread>
#include <utility>

#include "cli/exit_code.h"

namespace tandem::cli {
namespace {

constexpr auto kDeadline =
    std::chrono::seconds(20);  // above the 2 s that the coordinator gives an agent to look at paths
constexpr auto kCreatePatience = std::chrono::seconds(10);
constexpr int kMaxReplyBytes = 64 << 20;  // an HTML report with its pictures
constexpr int kMaxPages = 1000;

std::shared_ptr<grpc::Channel> Connect(const std::string& server) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReplyBytes);
  // A restarted coordinator is found again within a second.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  // Loopback and cluster addresses are direct; a proxy from the environment would only break them.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + kDeadline);
}

}  // namespace

Client::Client(std::string server) : server_(std::move(server)) {
  const auto channel = Connect(server_);
  jobs_ = v1::JobService::NewStub(channel);
  fleet_ = v1::FleetService::NewStub(channel);
}

Status Client::ToStatus(const grpc::Status& status) const {
  if (status.ok()) return Status::Ok();
  const Status own(static_cast<Code>(status.error_code()), status.error_message());
  // With details it is the coordinator's own word: it was reached.
  if (own.code() == Code::kUnavailable && status.error_details().empty()) {
    return own.WithContext("cannot reach a coordinator at " + server_ +
                           " (--server or TANDEM_SERVER chooses another)");
  }
  if (own.code() == Code::kDeadlineExceeded)
    return own.WithContext("the coordinator at " + server_ + " did not answer in time");
  return own;
}

template <typename Stub, typename Request, typename Response>
Result<Response> Client::Call(Stub& stub,
                              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
                              const Request& request) const {
  grpc::ClientContext context;
  SetDeadline(context);
  Response response;
  TANDEM_RETURN_IF_ERROR(ToStatus((stub.*method)(&context, request, &response)));
  return response;
}

Result<v1::Job> Client::CreateJob(const v1::CreateJobRequest& request) {
  const auto give_up = std::chrono::steady_clock::now() + kCreatePatience;
  for (;;) {
    grpc::ClientContext context;
    SetDeadline(context);
    v1::Job job;
    const grpc::Status status = jobs_->CreateJob(&context, request, &job);
    if (status.ok()) return job;
    const bool again =
        status.error_code() == grpc::StatusCode::UNAVAILABLE && !request.request_id().empty();
    if (!again || std::chrono::steady_clock::now() >= give_up) return ToStatus(status);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

Result<v1::Job> Client::GetJob(const std::string& name) {
  v1::GetJobRequest request;
  request.set_name(name);
  return Call(*jobs_, &v1::JobService::Stub::GetJob, request);
}

Result<v1::ListJobsResponse> Client::ListJobs(const v1::ListJobsRequest& request) {
  v1::ListJobsResponse all;
  v1::ListJobsRequest page = request;
  for (int pages = 0; pages < kMaxPages; ++pages) {
    TANDEM_ASSIGN_OR_RETURN(auto response, Call(*jobs_, &v1::JobService::Stub::ListJobs, page));
    for (auto& job : *response.mutable_jobs()) all.add_jobs()->Swap(&job);
    if (response.next_page_token().empty()) break;
    page.set_page_token(response.next_page_token());
  }
  return all;
}

Result<v1::Job> Client::CancelJob(const std::string& name) {
  v1::CancelJobRequest request;
  request.set_name(name);
  request.set_request_id(NewRequestId());
  return Call(*jobs_, &v1::JobService::Stub::CancelJob, request);
}

Result<v1::ListEventsResponse> Client::ListEvents(const std::string& name) {
  v1::ListEventsRequest request;
  request.set_name(name);
  return Call(*jobs_, &v1::JobService::Stub::ListEvents, request);
}

Result<v1::GetReportResponse> Client::GetReport(const std::string& name,
                                                const std::string& format) {
  v1::GetReportRequest request;
  request.set_name(name);
  request.set_format(format);
  return Call(*jobs_, &v1::JobService::Stub::GetReport, request);
}

Result<v1::ListWorkersResponse> Client::ListWorkers() {
  return Call(*fleet_, &v1::FleetService::Stub::ListWorkers, v1::ListWorkersRequest());
}

Result<v1::Worker> Client::DrainWorker(const std::string& name) {
  v1::DrainWorkerRequest request;
  request.set_name(name);
  return Call(*fleet_, &v1::FleetService::Stub::DrainWorker, request);
}

Result<v1::Worker> Client::UndrainWorker(const std::string& name) {
  v1::UndrainWorkerRequest request;
  request.set_name(name);
  return Call(*fleet_, &v1::FleetService::Stub::UndrainWorker, request);
}

std::unique_ptr<grpc::ClientReader<v1::WatchJobsResponse>> Client::WatchJobs(
    grpc::ClientContext& context, const v1::WatchJobsRequest& request) {
  return jobs_->WatchJobs(&context, request);
}

std::unique_ptr<grpc::ClientReader<v1::StreamLogsResponse>> Client::StreamLogs(
    grpc::ClientContext& context, const v1::StreamLogsRequest& request) {
  return jobs_->StreamLogs(&context, request);
}

int ExitCodeOf(const Status& status) {
  switch (status.code()) {
    case Code::kOk:
      return kExitOk;
    case Code::kInvalidArgument:
      return kExitUsage;
    case Code::kNotFound:
      return kExitNotFound;
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
      return kExitUnreachable;
    default:
      return kExitError;
  }
}

std::string NewRequestId() {
  unsigned char bytes[16];
  TANDEM_CHECK(getrandom(bytes, sizeof bytes, 0) == static_cast<ssize_t>(sizeof bytes));
  std::string id;
  for (const unsigned char byte : bytes) {
    id += "0123456789abcdef"[byte >> 4];
    id += "0123456789abcdef"[byte & 15];
  }
  return id;
}

}  // namespace tandem::cli
