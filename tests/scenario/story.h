// Story: one coordinator (core and memory store) under a clock moved by hand, driven by the
// commands of a scenario.
//
//   create NAME [slots=N] [gpus=N] [priority=N] [project=P] [request=ID] [digest=D]
//       uids are u1, u2, ... in order
//   cancel UID [etag=N]
//   register W slots=N [gpus=N] [inc=I] [live=u1/1,u2/1] [ended=u3/1]     a new stream each time
//   disconnect W
//   leaving W                                       the agent announces that it shuts down
//   drain W
//   undrain W
//   heartbeat W [u1/1 ...] [seq=N]                  the attempts are reported as running
//   running W u1/1
//   progress W u1/1 stage=NAME index=N of=N step=N
//   checkpoint W u1/1 stage=N step=N
//   stage W u1/1 name=NAME index=N
//   end W u1/1 CAUSE [detail=WORD] [report=WORD] [artifact=WORD]
//   tick MS                                         time goes by, with a tick each second
//   pause MS                                        the coordinator does not run, then ticks
//   restart                                         the coordinator crashes and loads its store
//   jobs                                            prints them
//   workers                                         prints them
//
// The transcript has one line per event, reply and command, in the order in which they leave;
// broken invariants are printed as BROKEN and fail the test.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/core/event.h"
#include "coordinator/core/invariants.h"
#include "coordinator/core/state.h"
#include "coordinator/store/memory_store.h"

namespace tandem::scenario {

// "end w1 u1/1 OK detail=x" taken apart.
struct Command {
  std::string verb;
  std::vector<std::string> words;
  std::map<std::string, std::string> options;

  std::string Word(size_t index) const;
  std::string Option(const std::string& key, const std::string& fallback) const;
  int64_t Number(const std::string& key, int64_t fallback) const;
};

class Story {
 public:
  Story();
  std::string Do(const std::string& line);

 private:
  core::Event EventOf(const Command& command);
  core::JobCreated Create(const Command& command);
  core::WorkerRegistered Register(const Command& command);
  core::HeartbeatReceived Heartbeat(const Command& command);
  core::AttemptReported Progress(const Command& command);
  core::AttemptEnded End(const Command& command);
  core::ConnectionId Connection(const std::string& worker) { return connections_[worker]; }
  std::string Step(const core::Event& event);
  std::string Wait(int64_t ms, int64_t step_ms);
  void Load();
  std::string Jobs() const;
  std::string Workers() const;

  std::shared_ptr<store::Rows> disk_ = std::make_shared<store::Rows>();
  std::unique_ptr<store::MemoryStore> store_;
  core::State state_;
  core::HistoryChecker history_;
  core::Now now_{1'000, 1'700'000'000'000};
  std::map<std::string, core::ConnectionId> connections_;
  core::ConnectionId next_connection_ = 1;
  int64_t next_uid_ = 1;
};

}  // namespace tandem::scenario
