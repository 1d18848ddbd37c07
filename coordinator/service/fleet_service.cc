#include "coordinator/service/fleet_service.h"

#include <utility>

#include "coordinator/service/job_names.h"
#include "coordinator/service/rich_error.h"

namespace tandem::service {

grpc::ServerUnaryReactor* FleetService::ListWorkers(grpc::CallbackServerContext* context,
                                                    const v1::ListWorkersRequest*,
                                                    v1::ListWorkersResponse* response) {
  for (v1::Worker& worker : desk_.fleet.All()) *response->add_workers() = std::move(worker);
  return FinishNow(context, grpc::Status::OK);
}

template <class CoreEvent>
grpc::ServerUnaryReactor* FleetService::Change(grpc::CallbackServerContext* context,
                                               const std::string& name, v1::Worker* worker) {
  const Result<std::string> id = WorkerIdOf(name);
  if (!id.ok()) return FinishNow(context, ToGrpc(id.status()));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const Status asked = desk_.loop.Ask(
      [&](core::RequestToken token) {
        return CoreEvent{token, *id};
      },
      [this, worker, reactor](const core::Reply& reply) {
        if (!reply.status.ok()) return reactor->Finish(ToGrpc(reply.status));
        Result<v1::Worker> now = desk_.fleet.Find(reply.worker);
        if (now.ok()) *worker = std::move(*now);
        reactor->Finish(ToGrpc(now.status()));
      });
  if (!asked.ok()) reactor->Finish(ToGrpc(asked));
  return reactor;
}

grpc::ServerUnaryReactor* FleetService::DrainWorker(grpc::CallbackServerContext* context,
                                                    const v1::DrainWorkerRequest* request,
                                                    v1::Worker* worker) {
  return Change<core::WorkerDrainRequested>(context, request->name(), worker);
}

grpc::ServerUnaryReactor* FleetService::UndrainWorker(grpc::CallbackServerContext* context,
                                                      const v1::UndrainWorkerRequest* request,
                                                      v1::Worker* worker) {
  return Change<core::WorkerUndrainRequested>(context, request->name(), worker);
}

}  // namespace tandem::service
