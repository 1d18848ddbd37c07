#include "coordinator/loop/scrape_endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
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

void ConnectOnce(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int connected = connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  static_cast<void>(connected);  // any attempt wakes the listener
  close(fd);
}

// The HTTP server looks at its stop flag only between polls of 2 s; connections wake it at once.
std::jthread KeepWaking(uint16_t port) {
  return std::jthread([port](const std::stop_token& stop) {
    std::mutex mu;
    std::condition_variable_any never;
    std::unique_lock lock(mu);
    while (!stop.stop_requested()) {
      ConnectOnce(port);
      never.wait_for(lock, stop, std::chrono::milliseconds(20), [] { return false; });
    }
  });
}

}  // namespace

struct ScrapeEndpoint::Server {
  std::shared_ptr<Refreshing> source;
  std::unique_ptr<prometheus::Exposer> exposer;
  uint16_t port = 0;
};

ScrapeEndpoint::ScrapeEndpoint(std::unique_ptr<Server> server, std::string address)
    : server_(std::move(server)), address_(std::move(address)) {}
ScrapeEndpoint::~ScrapeEndpoint() {
  const std::jthread waking = KeepWaking(server_->port);
  server_->exposer.reset();
}

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
  TANDEM_CHECK(!ports.empty());
  server->port = static_cast<uint16_t>(ports[0]);
  const std::string real = address.substr(0, address.rfind(':')) + ":" + std::to_string(ports[0]);
  return std::unique_ptr<ScrapeEndpoint>(new ScrapeEndpoint(std::move(server), real));
}

}  // namespace tandem
