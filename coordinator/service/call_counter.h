// CallCounter: counts every RPC by method and code, and times it. A server interceptor, so that no
// handler can forget. One per call; used by gRPC's threads, one at a time.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include "base/clock.h"
#include "coordinator/loop/metrics.h"

namespace tandem::service {

class CallCounterFactory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  CallCounterFactory(Metrics& metrics, const Clock& clock) : metrics_(metrics), clock_(clock) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  Metrics& metrics_;
  const Clock& clock_;
};

}  // namespace tandem::service
