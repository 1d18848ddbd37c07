// Agent: the coordinator's hands on this machine. Runs attempts as it is told and says what becomes
// of them.
//
// Confined to the loop's thread; the channel brings its messages there. Every order is idempotent
// by (job, epoch): the coordinator repeats what it does not know to have arrived. Of a job at most
// one attempt has processes here: a newer epoch fences the older ones and waits until they are
// gone.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "tandem/v1/fleet.pb.h"
#include "worker/agent/attempt.h"
#include "worker/agent/channel.h"
#include "worker/agent/outbox.h"

namespace tandem::agent {

struct AgentConfig {
  std::string coordinator;    // HOST:PORT
  v1::Register registration;  // all but `live`
  AttemptConfig attempts;
  int64_t orphan_ms = 30 * 60'000;
};

class Agent {
 public:
  Agent(AgentConfig config, AttemptTools tools, Metrics& metrics, Outbox outbox);
  ~Agent();

  // Timers: heartbeats, watchdogs, ends. Call at least every 100 ms.
  void Tick();
  // SIGTERM: attempts checkpoint and stop, their ends are delivered, then the loop is stopped.
  // Bounded. The second call kills what still runs.
  void Drain();

 private:
  using Key = std::pair<std::string, int64_t>;

  void OnOpened(int64_t stream);
  void OnReceived(int64_t stream, const v1::ChannelResponse& message);
  void OnClosed(int64_t stream, const Status& status);

  void OnRegistered(const v1::Registered& message);
  void OnLaunch(const v1::Launch& launch);
  void OnStop(const v1::Stop& stop);
  void OnInspect(const v1::Inspect& inspect);
  void OnReadLogs(const v1::ReadLogs& request);
  void OnHeartbeatAck(int64_t sequence);

  // Attempts of the job below `epoch`.
  void Fence(const std::string& job_uid, int64_t epoch, const std::string& reason);
  void RefuseLaunch(const v1::Launch& launch, const std::string& cause, const std::string& detail);
  void OnAttemptChanged(const Attempt& attempt);
  void OnAttemptEnded(const v1::AttemptStatus& ended);
  void SendUntilConfirmed(v1::ChannelRequest message);
  void SendHeartbeat(int64_t now_ms);
  void BeginWaiting();
  void StopOrphans(int64_t now_ms);
  void CheckDrained(int64_t now_ms);
  bool Send(v1::ChannelRequest message) { return channel_->Send(stream_, std::move(message)); }

  const AgentConfig config_;
  const AttemptTools tools_;
  Metrics& metrics_;
  Outbox outbox_;

  std::map<Key, std::shared_ptr<Attempt>> attempts_;
  std::map<std::string, int64_t> newest_epoch_;  // of each job launched or fenced in this life
  int64_t next_scratch_ = 1;
  std::map<Key, int64_t> told_ms_;  // when progress was last sent outside heartbeats

  int64_t stream_ = 0;  // 0: not connected
  bool registered_ = false;
  int64_t opened_ms_ = 0;  // when the stream was opened
  std::string last_refusal_;
  int64_t lease_ms_ = 10'000;
  int64_t heartbeat_ms_ = 2'000;
  int64_t next_heartbeat_ms_ = 0;
  int64_t heartbeat_sequence_ = 0;
  int64_t heard_ms_;  // when the coordinator last said anything
  // Commits and the drain, each with the heartbeat whose answer proves that it has arrived (one
  // stream is in order).
  std::deque<std::pair<int64_t, v1::ChannelRequest>> unconfirmed_;

  bool draining_ = false;
  int64_t drain_deadline_ms_ = 0;
  std::unique_ptr<Channel> channel_;  // last: its thread posts to the loop about the others
};

}  // namespace tandem::agent
