#include "coordinator/scrape_endpoint.h"

#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include <exception>
#include <utility>

namespace tandem {
namespace {

class Refreshing : public prometheus::Collectable {
 public:
  Refreshing(std::shared_ptr<prometheus::Registry> registry, std::function<void()> refresh)
      : registry_(std::move(registry)), refresh_(std::move(refresh)) {}
  std::vector<prometheus::MetricFamily> Collect() const override {
    refresh_();
    return registry_->Collect();
  }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  std::function<void()> refresh_;
};

}  // namespace

struct ScrapeEndpoint::Server {
  std::shared_ptr<Refreshing> source;
  std::unique_ptr<prometheus::Exposer> exposer;
};

ScrapeEndpoint::ScrapeEndpoint(std::unique_ptr<Server> server, std::string address)
    : server_(std::move(server)), address_(std::move(address)) {}
ScrapeEndpoint::~ScrapeEndpoint() = default;

Result<std::unique_ptr<ScrapeEndpoint>> ScrapeEndpoint::Listen(const std::string& address,
                                                               const Metrics& metrics,
                                                               std::function<void()> refresh) {
  auto server = std::make_unique<Server>();
  server->source = std::make_shared<Refreshing>(metrics.registry(), std::move(refresh));
  // The HTTP server says "port taken" by an exception; this is the only way to learn it.
  try {
    server->exposer = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& error) {
    return Unavailable("cannot serve metrics on " + address + ": " + error.what() +
                       "; pass another --metrics, or port 0 to choose a free one");
  }
  server->exposer->RegisterCollectable(server->source);
  const std::vector<int> ports = server->exposer->GetListeningPorts();
  std::string real = address;
  if (!ports.empty()) real = address.substr(0, address.rfind(':')) + ":" + std::to_string(ports[0]);
  return std::unique_ptr<ScrapeEndpoint>(new ScrapeEndpoint(std::move(server), real));
}

}  // namespace tandem
