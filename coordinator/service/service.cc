#include "coordinator/service/service.h"

#include <grpcpp/health_check_service_interface.h>

#include <utility>
#include <vector>

#include "base/log.h"
#include "coordinator/service/call_counter.h"
#include "coordinator/service/rich_error.h"

namespace tandem::service {
namespace {

constexpr int kMaxReceiveBytes =
    16 << 20;                     // what an agent may send; specs have their own, smaller limit
constexpr int kMaxStreams = 128;  // per connection
constexpr int kMinuteMs = 60'000;
constexpr int64_t kStopMs = 2'000;
constexpr std::chrono::milliseconds kTickPeriod{500};

void SetLimits(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMaxReceiveBytes);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
  // Two servers must never share a port: the second one shall fail to bind.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, 30 * kMinuteMs);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, 5 * kMinuteMs);
  // Only reflection and health are synchronous.
  builder->SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
}

}  // namespace

Service::Service(store::Store& store, Metrics& metrics, const Clock& clock, PageTokens page_tokens)
    : metrics_(metrics),
      clock_(clock),
      page_tokens_(std::move(page_tokens)),
      publisher_(jobs_, fleet_, hub_, metrics),
      loop_(store, publisher_, metrics, clock),
      job_service_(
          {loop_, jobs_, fleet_, hub_, relay_, followers_, metrics_, page_tokens_, clock_}),
      fleet_service_(
          {loop_, jobs_, fleet_, hub_, relay_, followers_, metrics_, page_tokens_, clock_}),
      worker_control_(loop_, hub_, relay_) {}

Service::~Service() {
  Stop();
}

Status Service::Start(const ServiceOptions& options) {
  TANDEM_RETURN_IF_ERROR(loop_.Start(options.limits));
  TANDEM_RETURN_IF_ERROR(Listen(options.listen));
  ShowHealth(true);
  ticker_ = std::make_unique<Ticker>(kTickPeriod, [this] { Tick(); });
  return Status::Ok();
}

Status Service::Listen(const std::string& listen) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &port);
  SetLimits(&builder);
  builder.RegisterService(&job_service_);
  builder.RegisterService(&fleet_service_);
  builder.RegisterService(&worker_control_);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<CallCounterFactory>(metrics_, clock_));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return Unavailable("cannot listen on " + listen +
                       "; pass another --listen, or port 0 to choose a free one");
  }
  address_ = listen.substr(0, listen.rfind(':')) + ":" + std::to_string(port);
  return Status::Ok();
}

void Service::ShowHealth(bool writable) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("coordinator", writable);
  health->SetServingStatus("jobs", writable);
}

void Service::Tick() {
  const int64_t now_ms = clock_.MonotonicMs();
  relay_.Expire(now_ms);
  jobs_.ShowStoreFailure(loop_.store_failure());
  jobs_.Tick(now_ms);
  followers_.Wake();
  ShowHealth(loop_.healthy());
}

void Service::Stop() {
  ticker_.reset();
  const grpc::Status stopping =
      ToGrpc(Unavailable("the coordinator is stopping; try again when it is back"));
  relay_.Stop();
  followers_.CloseAll(stopping);
  jobs_.EndWatches();
  hub_.CloseAll(stopping);
  loop_.Stop();
  if (server_ == nullptr) return;
  server_->Shutdown(gpr_time_from_millis(clock_.WallMs() + kStopMs, GPR_CLOCK_REALTIME));
  server_.reset();
}

void Service::ShowGauges() {
  FleetGauges gauges;
  for (int reason = 1; reason < core::kNumPendingReasons; ++reason) {
    gauges.pending_by_reason[core::Name(static_cast<core::PendingReason>(reason))] = 0;
  }
  jobs_.FillGauges(&gauges);
  fleet_.FillGauges(clock_, &gauges);
  metrics_.Show(gauges);
}

}  // namespace tandem::service
