// Client: the coordinator's services as plain calls. Each unary call has a deadline and gives a
// Status; errors are told in words that name the address. Thread-safe, as gRPC stubs are.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "tandem/v1/fleet.grpc.pb.h"
#include "tandem/v1/service.grpc.pb.h"

namespace tandem::cli {

class Client {
 public:
  // "host:port"; connects on the first call.
  explicit Client(std::string server);

  // Repeats while the coordinator is unavailable (the request id makes that safe), for at most 10
  // s.
  Result<v1::Job> CreateJob(const v1::CreateJobRequest& request);
  Result<v1::Job> GetJob(const std::string& name);
  // All pages.
  Result<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request);
  Result<v1::Job> CancelJob(const std::string& name);
  Result<v1::ListEventsResponse> ListEvents(const std::string& name);
  Result<v1::GetReportResponse> GetReport(const std::string& name, const std::string& format);
  Result<v1::ListWorkersResponse> ListWorkers();
  // name: "workers/x" or "x".
  Result<v1::Worker> DrainWorker(const std::string& name);
  Result<v1::Worker> UndrainWorker(const std::string& name);

  // Streams: the caller owns the context, and cancels it to stop.
  std::unique_ptr<grpc::ClientReader<v1::WatchJobsResponse>> WatchJobs(
      grpc::ClientContext& context, const v1::WatchJobsRequest& request);
  std::unique_ptr<grpc::ClientReader<v1::StreamLogsResponse>> StreamLogs(
      grpc::ClientContext& context, const v1::StreamLogsRequest& request);

  Status ToStatus(const grpc::Status& status) const;
  const std::string& server() const { return server_; }

 private:
  // One call of one stub, with the deadline.
  template <typename Stub, typename Request, typename Response>
  Result<Response> Call(Stub& stub,
                        grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                     Response*),
                        const Request& request) const;

  const std::string server_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::FleetService::Stub> fleet_;
};

// The exit code that a failed call stands for.
int ExitCodeOf(const Status& status);

// 32 random hex digits.
std::string NewRequestId();

}  // namespace tandem::cli
