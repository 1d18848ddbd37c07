// Metrics: every series of the coordinator, in one place, with its HELP.
//
// Labels come from closed sets (states, reasons, RPC names, recipes; worker names as the one
// exception); no series carries a job's id, and none a label `job` or `instance`, which belong to
// Prometheus. Counters are counted where the thing happens; gauges are set by whoever knows, at
// scrape time (ScrapeEndpoint's refresh). Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace prometheus {
class Registry;
}

namespace tandem {

// What the gauges show at one moment.
struct FleetGauges {
  std::map<std::string, int64_t> jobs_by_state;         // every state, also those with none
  std::map<std::string, int64_t> workers_by_state;      // the same
  std::map<std::string, int64_t> pending_by_reason;     // the same
  std::map<std::string, double> heartbeat_age_seconds;  // by worker; lost ones too
  int64_t event_revision = 0;
  int64_t watchers = 0;
};

class Metrics {
 public:
  explicit Metrics(const std::string& version);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void CountTransition(const std::string& from, const std::string& to, const std::string& reason);
  // result: accepted (new or replayed), validated (validate_only), invalid, refused.
  void CountSubmission(const std::string& result);
  void CountCall(const std::string& method, const std::string& code, double seconds);
  void CountVerdict(const std::string& recipe, const std::string& verdict);
  void CountAttemptFailure(const std::string& cause);
  void CountStaleEpoch();
  void ObserveCommit(double seconds);
  // Replaces all gauges; workers that are gone lose their series.
  void Show(const FleetGauges& gauges);

  const std::shared_ptr<prometheus::Registry>& registry() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace tandem
