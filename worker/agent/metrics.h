// Metrics: the agent's Prometheus series, in one place, with their HELP, and the endpoint that
// serves them.
//
// Series of a job carry its name as job_id (`job` belongs to Prometheus) and vanish when its
// attempt ends. GET /metrics over plain HTTP on loopback. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"

namespace tandem::agent {

// One live attempt, as shown at a scrape.
struct AttemptGauges {
  double step_seconds = 0;
  double loss = 0;
  double tokens_per_second = 0;
  double step = 0;
  bool training = false;               // the four above mean something
  double checkpoint_age_seconds = -1;  // below 0: not training
  double linear_capability = 0;
  bool evaluated = false;
};

class Metrics {
 public:
  // HOST:PORT, port 0 = choose. kUnavailable when it cannot listen there.
  static Result<std::unique_ptr<Metrics>> Listen(const std::string& address,
                                                 const std::string& version, int64_t start_wall_ms);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // With the port that it really has.
  const std::string& address() const { return address_; }
  void Show(const std::string& job_id, const AttemptGauges& gauges);
  void Forget(const std::string& job_id);
  void CountAttempt(const std::string& cause);
  void ShowConnected(bool connected);

 private:
  struct Families;
  explicit Metrics(std::unique_ptr<Families> families);
  std::unique_ptr<Families> families_;
  std::string address_;
};

}  // namespace tandem::agent
