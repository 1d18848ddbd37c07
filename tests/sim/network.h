// Network: streams between agents and the coordinator. Within a stream and a direction messages
// stay in order, as gRPC promises; everything else may happen: any delay, a break that loses what
// is under way, and ends that learn of it late or never.
#pragma once

#include <cstdint>
#include <functional>
#include <map>

#include "coordinator/core/types.h"
#include "tests/sim/rng.h"
#include "tests/sim/timeline.h"

namespace tandem::sim {

class Network {
 public:
  Network(Timeline& timeline, Rng& rng) : timeline_(timeline), rng_(rng) {}

  // Called when an end learns that its stream is gone.
  struct Ends {
    std::function<void(core::ConnectionId)> agent;
    std::function<void(core::ConnectionId)> coordinator;
  };
  core::ConnectionId Open(Ends ends);
  // The message arrives later, unless the stream breaks before.
  void Send(core::ConnectionId stream, bool up, std::function<void()> deliver);
  void Break(core::ConnectionId stream);
  void BreakAll();
  bool IsOpen(core::ConnectionId stream) const { return streams_.contains(stream); }
  // Without trouble, messages take a few milliseconds and breaks are noticed soon.
  void SetCalm() { is_calm_ = true; }

 private:
  struct Stream {
    Ends ends;
    int64_t arrival_ms[2] = {0, 0};
  };
  int64_t Delay();

  Timeline& timeline_;
  Rng& rng_;
  bool is_calm_ = false;
  core::ConnectionId next_ = 1;
  std::map<core::ConnectionId, Stream> streams_;
};

}  // namespace tandem::sim
