#include "coordinator/loop/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include "base/mutex.h"

namespace tandem {
namespace {

using CounterFamily = prometheus::Family<prometheus::Counter>;
using GaugeFamily = prometheus::Family<prometheus::Gauge>;
using HistogramFamily = prometheus::Family<prometheus::Histogram>;

CounterFamily& Counters(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
GaugeFamily& Gauges(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
}
HistogramFamily& Histograms(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

const prometheus::Histogram::BucketBoundaries kCallSeconds = {0.001, 0.005, 0.01, 0.05, 0.1,
                                                              0.5,   1,     5,    30};
const prometheus::Histogram::BucketBoundaries kCommitSeconds = {0.0005, 0.001, 0.002, 0.005, 0.01,
                                                                0.02,   0.05,  0.1,   0.5,   2};

}  // namespace

struct Metrics::Families {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  CounterFamily& transitions = Counters(*registry, "tandem_job_transitions_total",
                                        "Changes of job state, by both states and the reason.");
  CounterFamily& submissions =
      Counters(*registry, "tandem_job_submissions_total",
               "CreateJob calls by result: accepted (also replayed), validated, invalid, refused.");
  CounterFamily& handled = Counters(*registry, "tandem_grpc_server_handled_total",
                                    "Finished RPCs by method and gRPC code.");
  HistogramFamily& handling = Histograms(*registry, "tandem_grpc_server_handling_seconds",
                                         "Time from an RPC's arrival to its status.");
  CounterFamily& verdicts = Counters(*registry, "tandem_verdicts_total",
                                     "Finished conversions by recipe and component verdict.");
  CounterFamily& failures = Counters(*registry, "tandem_attempt_failures_total",
                                     "Attempts that failed, by cause; a stop on request is none.");
  CounterFamily& stale_family =
      Counters(*registry, "tandem_stale_epoch_rejections_total",
               "Messages of attempts that are no longer their job's; they change nothing.");
  HistogramFamily& commit_family =
      Histograms(*registry, "tandem_store_commit_seconds", "Time of one durable store commit.");
  GaugeFamily& jobs = Gauges(*registry, "tandem_jobs", "Jobs by state.");
  GaugeFamily& workers = Gauges(*registry, "tandem_workers", "Workers by state.");
  GaugeFamily& pending = Gauges(*registry, "tandem_pending_jobs", "Pending jobs by reason.");
  GaugeFamily& heartbeat_age = Gauges(*registry, "tandem_worker_heartbeat_age_seconds",
                                      "Time since the worker's last heartbeat.");
  GaugeFamily& revision_family =
      Gauges(*registry, "tandem_event_revision", "Revision of the newest durable job event.");
  GaugeFamily& watchers_family = Gauges(*registry, "tandem_watchers", "Open WatchJobs streams.");
  GaugeFamily& build_info =
      Gauges(*registry, "tandem_build_info", "Always 1; the version is a label.");

  // Series without labels exist from the start: 0 is an answer, absence is not.
  prometheus::Counter& stale = stale_family.Add({});
  prometheus::Histogram& commit = commit_family.Add({}, kCommitSeconds);
  prometheus::Gauge& revision = revision_family.Add({});
  prometheus::Gauge& watchers = watchers_family.Add({});

  Mutex mu;
  std::map<std::string, prometheus::Gauge*> age_by_worker TANDEM_GUARDED_BY(mu);
};

Metrics::Metrics(const std::string& version) : families_(std::make_unique<Families>()) {
  families_->build_info.Add({{"version", version}, {"component", "coordinator"}}).Set(1);
}
Metrics::~Metrics() = default;

const std::shared_ptr<prometheus::Registry>& Metrics::registry() const {
  return families_->registry;
}

void Metrics::CountTransition(const std::string& from, const std::string& to,
                              const std::string& reason) {
  families_->transitions.Add({{"from", from}, {"to", to}, {"reason", reason}}).Increment();
}

void Metrics::CountSubmission(const std::string& result) {
  families_->submissions.Add({{"result", result}}).Increment();
}

void Metrics::CountCall(const std::string& method, const std::string& code, double seconds) {
  families_->handled.Add({{"method", method}, {"code", code}}).Increment();
  families_->handling.Add({{"method", method}}, kCallSeconds).Observe(seconds);
}

void Metrics::CountVerdict(const std::string& recipe, const std::string& verdict) {
  families_->verdicts.Add({{"recipe", recipe}, {"verdict", verdict}}).Increment();
}

void Metrics::CountAttemptFailure(const std::string& cause) {
  families_->failures.Add({{"cause", cause}}).Increment();
}

void Metrics::CountStaleEpoch() {
  families_->stale.Increment();
}

void Metrics::ObserveCommit(double seconds) {
  families_->commit.Observe(seconds);
}

void Metrics::Show(const FleetGauges& gauges) {
  Families& f = *families_;
  for (const auto& [state, count] : gauges.jobs_by_state) {
    f.jobs.Add({{"state", state}}).Set(static_cast<double>(count));
  }
  for (const auto& [state, count] : gauges.workers_by_state) {
    f.workers.Add({{"state", state}}).Set(static_cast<double>(count));
  }
  for (const auto& [reason, count] : gauges.pending_by_reason) {
    f.pending.Add({{"reason", reason}}).Set(static_cast<double>(count));
  }
  f.revision.Set(static_cast<double>(gauges.event_revision));
  f.watchers.Set(static_cast<double>(gauges.watchers));
  MutexLock lock(f.mu);
  for (auto it = f.age_by_worker.begin(); it != f.age_by_worker.end();) {
    if (gauges.heartbeat_age_seconds.count(it->first) != 0) {
      ++it;
      continue;
    }
    f.heartbeat_age.Remove(it->second);
    it = f.age_by_worker.erase(it);
  }
  for (const auto& [worker, age] : gauges.heartbeat_age_seconds) {
    prometheus::Gauge*& gauge = f.age_by_worker[worker];
    if (gauge == nullptr) gauge = &f.heartbeat_age.Add({{"worker", worker}});
    gauge->Set(age);
  }
}

}  // namespace tandem
