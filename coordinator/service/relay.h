// Relay: questions to agents (look at these paths, read that log) and the answers that come back on
// their channels.
//
// A question has an id, a deadline and one continuation, which runs exactly once: with the answer,
// or with a Status when the deadline passes, the agent is not connected, or the coordinator stops.
// At most kMaxOpen are open. Locked by mu_; continuations run without it, on the thread that
// brought the answer or on the ticker's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "tandem/v1/fleet.pb.h"

namespace tandem::service {

class WorkerHub;

class Relay {
 public:
  using InspectDone = std::function<void(Result<v1::InspectResult>)>;
  using LogDone = std::function<void(Result<v1::LogChunk>)>;
  static constexpr size_t kMaxOpen = 4096;

  explicit Relay(WorkerHub& hub) : hub_(hub) {}

  // The request's request_id is filled in here.
  void AskInspect(const std::string& worker, v1::Inspect question, int64_t deadline_ms,
                  InspectDone done);
  void AskLogs(const std::string& worker, v1::ReadLogs question, int64_t deadline_ms, LogDone done);

  // Answers from a channel; unknown ids (late answers) are dropped.
  void OnInspectResult(v1::InspectResult answer);
  void OnLogChunk(v1::LogChunk answer);

  // Fails what was asked on this stream: it has ended, and the answers with it. What the worker was
  // asked on a newer one stays.
  void OnDisconnected(uint64_t connection);
  // Fails what is past its deadline (monotonic milliseconds).
  void Expire(int64_t now_ms);
  // Fails everything; later questions fail at once.
  void Stop();

 private:
  struct Open {
    int64_t deadline_ms = 0;
    std::string worker;
    uint64_t connection = 0;
    InspectDone inspect;
    LogDone logs;
  };
  static void Fail(const Open& open, const Status& status);
  // Sends `message`, whose request_id is filled in.
  void Ask(Open open, v1::ChannelResponse& message, std::string& request_id);
  // The new question's id; refused when too many are open or all has stopped.
  Result<std::string> Register(const Open& open);
  bool Take(const std::string& id, Open* open);
  std::vector<Open> TakeIf(const std::function<bool(const Open&)>& wanted);

  WorkerHub& hub_;
  Mutex mu_;
  bool stopped_ TANDEM_GUARDED_BY(mu_) = false;
  int64_t next_id_ TANDEM_GUARDED_BY(mu_) = 1;
  std::map<std::string, Open> open_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::service
