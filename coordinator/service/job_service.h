// JobService: what the CLI and other clients call (proto/tandem/v1/service.proto).
//
// Each handler decodes and checks, then either answers from the boards or asks the state thread and
// answers when its commit is durable. No handler waits: calls that need time end from another
// thread. One file per group of calls: create_job.cc, cancel_job.cc, read_jobs.cc, watch_jobs.cc,
// logs_and_reports.cc. Any thread; all members are references to locked objects, or immutable.
#pragma once

#include "base/clock.h"
#include "coordinator/loop/loop.h"
#include "coordinator/loop/metrics.h"
#include "coordinator/service/fleet_board.h"
#include "coordinator/service/job_board.h"
#include "coordinator/service/log_stream.h"
#include "coordinator/service/page_token.h"
#include "coordinator/service/relay.h"
#include "coordinator/service/worker_hub.h"
#include "tandem/v1/fleet.grpc.pb.h"
#include "tandem/v1/service.grpc.pb.h"

namespace tandem::service {

// What the handlers work with.
struct Desk {
  Loop& loop;
  JobBoard& jobs;
  FleetBoard& fleet;
  WorkerHub& hub;
  Relay& relay;
  LogFollowers& followers;
  Metrics& metrics;
  const PageTokens& page_tokens;
  const Clock& clock;
};

class JobService : public v1::JobService::CallbackService {
 public:
  explicit JobService(const Desk& desk) : desk_(desk) {}

  grpc::ServerUnaryReactor* CreateJob(grpc::CallbackServerContext* context,
                                      const v1::CreateJobRequest* request, v1::Job* job) override;
  grpc::ServerUnaryReactor* GetJob(grpc::CallbackServerContext* context,
                                   const v1::GetJobRequest* request, v1::Job* job) override;
  grpc::ServerUnaryReactor* ListJobs(grpc::CallbackServerContext* context,
                                     const v1::ListJobsRequest* request,
                                     v1::ListJobsResponse* response) override;
  grpc::ServerUnaryReactor* CancelJob(grpc::CallbackServerContext* context,
                                      const v1::CancelJobRequest* request, v1::Job* job) override;
  grpc::ServerWriteReactor<v1::WatchJobsResponse>* WatchJobs(
      grpc::CallbackServerContext* context, const v1::WatchJobsRequest* request) override;
  grpc::ServerWriteReactor<v1::StreamLogsResponse>* StreamLogs(
      grpc::CallbackServerContext* context, const v1::StreamLogsRequest* request) override;
  grpc::ServerUnaryReactor* ListEvents(grpc::CallbackServerContext* context,
                                       const v1::ListEventsRequest* request,
                                       v1::ListEventsResponse* response) override;
  grpc::ServerUnaryReactor* GetReport(grpc::CallbackServerContext* context,
                                      const v1::GetReportRequest* request,
                                      v1::GetReportResponse* response) override;

 private:
  const Desk desk_;
};

// Ends a unary call now.
grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context,
                                    const grpc::Status& status);

}  // namespace tandem::service
