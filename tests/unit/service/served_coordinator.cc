#include "tests/unit/service/served_coordinator.h"

#include <gtest/gtest.h>

#include "spec/spec.h"

namespace tandem::service {

void SetDeadline(grpc::ClientContext* context) {
  const gpr_timespec patience = gpr_time_from_seconds(kPatience.count(), GPR_TIMESPAN);
  context->set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), patience));
}

v1::JobSpec GoodSpec(const std::string& name) {
  v1::JobSpec spec;
  spec.set_name(name);
  spec.mutable_model()->set_path("/models/base");
  spec.mutable_data()->add_train("/text/train.txt");
  spec.set_recipe("ssd");
  return spec;
}

ServedCoordinator::ServedCoordinator(core::Limits limits) : limits_(limits) {
  Start();
}
ServedCoordinator::~ServedCoordinator() {
  Stop();
}

void ServedCoordinator::Start() {
  store_ = std::make_unique<store::MemoryStore>(rows_);
  service_ = std::make_unique<Service>(*store_, metrics_, Clock::System(),
                                       PageTokens("a key of the tests only"));
  const Status started = service_->Start({"127.0.0.1:0", limits_});
  TANDEM_CHECK_MSG(started.ok(), started.ToString());
  channel_ = grpc::CreateChannel(service_->address(), grpc::InsecureChannelCredentials());
  jobs_ = v1::JobService::NewStub(channel_);
  fleet_ = v1::FleetService::NewStub(channel_);
}

void ServedCoordinator::Stop() {
  service_.reset();
}

void ServedCoordinator::Restart() {
  Stop();
  Start();
}

grpc::Status ServedCoordinator::Create(const v1::CreateJobRequest& request, v1::Job* job) {
  grpc::ClientContext context;
  SetDeadline(&context);
  return jobs_->CreateJob(&context, request, job);
}

v1::Job ServedCoordinator::MustCreate(const std::string& name, int priority,
                                      const std::string& request_id) {
  v1::CreateJobRequest request;
  *request.mutable_spec() = GoodSpec(name);
  request.mutable_spec()->set_priority(priority);
  request.set_request_id(request_id);
  v1::Job job;
  const grpc::Status status = Create(request, &job);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return job;
}

grpc::Status ServedCoordinator::Get(const std::string& name, v1::Job* job) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetJobRequest request;
  request.set_name(name);
  return jobs_->GetJob(&context, request, job);
}

grpc::Status ServedCoordinator::List(const v1::ListJobsRequest& request,
                                     v1::ListJobsResponse* response) {
  grpc::ClientContext context;
  SetDeadline(&context);
  return jobs_->ListJobs(&context, request, response);
}

grpc::Status ServedCoordinator::Cancel(const std::string& name, v1::Job* job,
                                       const std::string& etag) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::CancelJobRequest request;
  request.set_name(name);
  request.set_etag(etag);
  return jobs_->CancelJob(&context, request, job);
}

v1::ListWorkersResponse ServedCoordinator::Workers() {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ListWorkersResponse response;
  const grpc::Status status = fleet_->ListWorkers(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

v1::Job ServedCoordinator::Await(const std::string& name,
                                 const std::function<bool(const v1::Job&)>& reached) {
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::WatchJobsRequest request;
  request.set_name(name);
  const auto reader = jobs_->WatchJobs(&context, request);
  v1::WatchJobsResponse message;
  v1::Job last;
  while (reader->Read(&message)) {
    for (const v1::Job& job : message.jobs()) {
      last = job;
      if (!reached(job)) continue;
      context.TryCancel();
      return job;
    }
  }
  ADD_FAILURE() << "waited in vain: " << reader->Finish().error_message() << "\n"
                << last.ShortDebugString();
  return last;
}

v1::Job ServedCoordinator::AwaitState(const std::string& name, v1::JobState state) {
  return Await(name, [state](const v1::Job& job) { return job.state() == state; });
}

void ServedCoordinator::AwaitWorkers(
    const std::function<bool(const v1::ListWorkersResponse&)>& reached) {
  const Clock& clock = Clock::System();
  const int64_t deadline_ms = clock.MonotonicMs() + kPatience.count() * 1000;
  v1::ListWorkersResponse workers = Workers();
  while (!reached(workers)) {
    if (clock.MonotonicMs() > deadline_ms) {
      ADD_FAILURE() << "waited in vain: " << workers.ShortDebugString();
      return;
    }
    workers = Workers();
  }
}

}  // namespace tandem::service
