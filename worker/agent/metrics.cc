#include "worker/agent/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <exception>
#include <map>
#include <utility>

#include "base/mutex.h"

namespace tandem::agent {
namespace {

using GaugeFamily = prometheus::Family<prometheus::Gauge>;

GaugeFamily& MakeGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}

}  // namespace

struct Metrics::Families {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  GaugeFamily& build_info =
      MakeGauge(*registry, "tandem_build_info", "Constant 1, labelled with the program's version.");
  GaugeFamily& start_time = MakeGauge(*registry, "tandem_worker_start_time_seconds",
                                      "When this agent started, in seconds since 1970.");
  GaugeFamily& connected = MakeGauge(*registry, "tandem_worker_connected",
                                     "1 while this agent is registered with its coordinator.");
  prometheus::Family<prometheus::Counter>& attempts =
      prometheus::BuildCounter()
          .Name("tandem_attempts_total")
          .Help("Attempts that have ended on this worker, by cause.")
          .Register(*registry);
  GaugeFamily& step_seconds = MakeGauge(*registry, "tandem_train_step_seconds",
                                        "Seconds that the newest training step took.");
  GaugeFamily& loss =
      MakeGauge(*registry, "tandem_train_loss", "Loss of the newest training step.");
  GaugeFamily& tokens = MakeGauge(*registry, "tandem_train_tokens_per_second",
                                  "Training speed, over all ranks of the attempt.");
  GaugeFamily& step =
      MakeGauge(*registry, "tandem_train_step", "Steps done of the stage that is running.");
  GaugeFamily& checkpoint_age =
      MakeGauge(*registry, "tandem_checkpoint_age_seconds",
                "Seconds since the attempt's newest checkpoint, or since its start without one.");
  GaugeFamily& capability = MakeGauge(
      *registry, "tandem_linear_capability_ratio",
      "Share of attention's worth that the linear component recovers alone; after evaluation.");
  Mutex mu;
  std::map<std::pair<GaugeFamily*, std::string>, prometheus::Gauge*> of_jobs TANDEM_GUARDED_BY(mu);
  std::unique_ptr<prometheus::Exposer> exposer;  // last: it reads the others

  void Set(GaugeFamily& family, const std::string& job_id, bool shown, double value) {
    MutexLock lock(mu);
    auto& gauge = of_jobs[{&family, job_id}];
    if (shown && gauge == nullptr) gauge = &family.Add({{"job_id", job_id}});
    if (shown) gauge->Set(value);
    if (shown) return;
    if (gauge != nullptr) family.Remove(gauge);
    of_jobs.erase({&family, job_id});
  }
};

Metrics::Metrics(std::unique_ptr<Families> families) : families_(std::move(families)) {}
Metrics::~Metrics() = default;

Result<std::unique_ptr<Metrics>> Metrics::Listen(const std::string& address,
                                                 const std::string& version,
                                                 int64_t start_wall_ms) {
  auto families = std::make_unique<Families>();
  families->build_info.Add({{"version", version}}).Set(1);
  families->start_time.Add({}).Set(static_cast<double>(start_wall_ms) / 1000);
  families->connected.Add({}).Set(0);
  // The HTTP server says "port taken" by an exception; this is the only way to learn it.
  try {
    families->exposer = std::make_unique<prometheus::Exposer>(address, 1);
  } catch (const std::exception& error) {
    return Unavailable("cannot serve metrics on " + address + ": " + error.what() +
                       "; pass another --metrics, or port 0 to choose a free one");
  }
  families->exposer->RegisterCollectable(families->registry);
  const auto ports = families->exposer->GetListeningPorts();
  std::unique_ptr<Metrics> metrics(new Metrics(std::move(families)));
  metrics->address_ = address;
  if (!ports.empty()) {
    metrics->address_ = address.substr(0, address.rfind(':') + 1) + std::to_string(ports[0]);
  }
  return metrics;
}

void Metrics::Show(const std::string& job_id, const AttemptGauges& gauges) {
  Families& to = *families_;
  to.Set(to.step_seconds, job_id, gauges.training, gauges.step_seconds);
  to.Set(to.loss, job_id, gauges.training, gauges.loss);
  to.Set(to.tokens, job_id, gauges.training, gauges.tokens_per_second);
  to.Set(to.step, job_id, gauges.training, gauges.step);
  const double age = gauges.checkpoint_age_seconds;
  to.Set(to.checkpoint_age, job_id, age >= 0, age);
  to.Set(to.capability, job_id, gauges.evaluated, gauges.linear_capability);
}

void Metrics::Forget(const std::string& job_id) {
  Show(job_id, {});
}

void Metrics::CountAttempt(const std::string& cause) {
  families_->attempts.Add({{"cause", cause}}).Increment();
}

void Metrics::ShowConnected(bool connected) {
  families_->connected.Add({}).Set(connected ? 1 : 0);
}

}  // namespace tandem::agent
