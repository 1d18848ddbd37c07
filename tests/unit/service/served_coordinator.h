// ServedCoordinator: a whole coordinator in this process, on ports of its own, and a client to it.
//
// Real gRPC, real state thread; the rows live in memory and outlive the coordinator, so a test
// restarts it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "coordinator/service/service.h"
#include "coordinator/store/memory_store.h"
#include "tandem/v1/service.grpc.pb.h"

namespace tandem::service {

// Every wait of these tests ends by then, with a failure.
inline constexpr std::chrono::seconds kPatience{10};

class ServedCoordinator {
 public:
  explicit ServedCoordinator(core::Limits limits = {});
  ~ServedCoordinator();

  // As after a crash: what is not in the rows is gone. The port changes.
  void Restart();
  void Stop();
  store::MemoryStore& store() { return *store_; }
  Metrics& metrics() { return metrics_; }
  Service& service() { return *service_; }
  const std::string& address() const { return service_->address(); }

  v1::JobService::Stub& jobs() { return *jobs_; }
  v1::FleetService::Stub& fleet() { return *fleet_; }
  std::shared_ptr<grpc::Channel> channel() { return channel_; }

  // Unary calls of the tests, with a deadline.
  grpc::Status Create(const v1::CreateJobRequest& request, v1::Job* job);
  v1::Job MustCreate(const std::string& name, int priority = 0, const std::string& request_id = "");
  grpc::Status Get(const std::string& name, v1::Job* job);
  grpc::Status List(const v1::ListJobsRequest& request, v1::ListJobsResponse* response);
  grpc::Status Cancel(const std::string& name, v1::Job* job, const std::string& etag = "");
  v1::ListWorkersResponse Workers();
  // Watches until the job satisfies the condition; fails the test after kPatience.
  v1::Job Await(const std::string& name, const std::function<bool(const v1::Job&)>& reached);
  v1::Job AwaitState(const std::string& name, v1::JobState state);
  // Reads the workers until they satisfy the condition; fails the test after kPatience.
  void AwaitWorkers(const std::function<bool(const v1::ListWorkersResponse&)>& reached);

 private:
  void Start();

  const core::Limits limits_;
  Metrics metrics_{"test"};
  std::shared_ptr<store::Rows> rows_ = std::make_shared<store::Rows>();
  std::unique_ptr<store::MemoryStore> store_;
  std::unique_ptr<Service> service_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::FleetService::Stub> fleet_;
};

// A spec that is valid as it stands; nothing looks at its paths.
v1::JobSpec GoodSpec(const std::string& name);
void SetDeadline(grpc::ClientContext* context);

}  // namespace tandem::service
