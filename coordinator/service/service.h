// Service: the coordinator around its core, as one object: the state thread, the boards, the
// agents' channels, and the gRPC server with health and reflection.
//
// Main owns one; tests start their own on port 0. Made whole by the constructor, begun by Start,
// ended by Stop or the destructor. Start and Stop are called from one thread.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "coordinator/loop/loop.h"
#include "coordinator/loop/metrics.h"
#include "coordinator/service/fleet_service.h"
#include "coordinator/service/job_service.h"
#include "coordinator/service/publisher.h"
#include "coordinator/service/ticker.h"
#include "coordinator/service/worker_channel.h"

namespace tandem::service {

struct ServiceOptions {
  std::string listen;  // HOST:PORT, port 0 = choose
  core::Limits limits;
};

class Service {
 public:
  Service(store::Store& store, Metrics& metrics, const Clock& clock, PageTokens page_tokens);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // Loads the store, then serves. Unavailable when the address is taken; the store's errors as they
  // are.
  Status Start(const ServiceOptions& options);
  // Ends all streams with UNAVAILABLE, answers who waits, stops serving. Idempotent.
  void Stop();
  // HOST:PORT that is really served.
  const std::string& address() const { return address_; }
  // What the scrape shows now. Any thread.
  void ShowGauges();

 private:
  Status Listen(const std::string& listen);
  void Tick();
  void ShowHealth(bool writable);

  Metrics& metrics_;
  const Clock& clock_;
  const PageTokens page_tokens_;
  JobBoard jobs_;
  FleetBoard fleet_;
  WorkerHub hub_;
  Relay relay_{hub_};
  LogFollowers followers_;
  Publisher publisher_;
  Loop loop_;
  JobService job_service_;
  FleetService fleet_service_;
  WorkerControlService worker_control_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::unique_ptr<Ticker> ticker_;
};

}  // namespace tandem::service
