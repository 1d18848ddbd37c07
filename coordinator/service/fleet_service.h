// FleetService: workers, for people and operators. As JobService: reads from the board, changes
// through the state thread.
#pragma once

#include "coordinator/service/job_service.h"

namespace tandem::service {

class FleetService : public v1::FleetService::CallbackService {
 public:
  explicit FleetService(const Desk& desk) : desk_(desk) {}

  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context,
                                        const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* DrainWorker(grpc::CallbackServerContext* context,
                                        const v1::DrainWorkerRequest* request,
                                        v1::Worker* worker) override;
  grpc::ServerUnaryReactor* UndrainWorker(grpc::CallbackServerContext* context,
                                          const v1::UndrainWorkerRequest* request,
                                          v1::Worker* worker) override;

 private:
  template <class CoreEvent>
  grpc::ServerUnaryReactor* Change(grpc::CallbackServerContext* context, const std::string& name,
                                   v1::Worker* worker);

  const Desk desk_;
};

}  // namespace tandem::service
