// ScrapeEndpoint: GET /metrics over plain HTTP, for Prometheus.
//
// Before each answer it calls `refresh`, so gauges are as fresh as the scrape. Plain text on
// loopback or behind a network policy: it holds no secrets and no user text. Serves until
// destroyed, on two threads of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "coordinator/loop/metrics.h"

namespace tandem {

class ScrapeEndpoint {
 public:
  // address: HOST:PORT, port 0 = choose. Unavailable when it cannot listen there. refresh: any
  // thread, must not block.
  static Result<std::unique_ptr<ScrapeEndpoint>> Listen(const std::string& address,
                                                        const Metrics& metrics,
                                                        std::function<void()> refresh);
  ~ScrapeEndpoint();
  // HOST:PORT with the port that it really has.
  const std::string& address() const { return address_; }

 private:
  struct Server;
  ScrapeEndpoint(std::unique_ptr<Server> server, std::string address);
  std::unique_ptr<Server> server_;
  std::string address_;
};

}  // namespace tandem
