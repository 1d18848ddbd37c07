#include "tests/sim/network.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace tandem::sim {

int64_t Network::Delay() {
  if (is_calm_) return rng_.Between(0, 3);
  if (rng_.Chance(5)) return rng_.Between(1'000, 20'000);  // clogged
  return rng_.Chance(100) ? rng_.Between(0, 500) : rng_.Between(0, 5);
}

core::ConnectionId Network::Open(Ends ends) {
  const core::ConnectionId id = next_++;
  streams_[id].ends = std::move(ends);
  return id;
}

void Network::Send(core::ConnectionId id, bool up, std::function<void()> deliver) {
  const auto stream = streams_.find(id);
  if (stream == streams_.end()) return;
  int64_t& arrival_ms = stream->second.arrival_ms[up ? 0 : 1];
  arrival_ms = std::max(arrival_ms, timeline_.now_ms() + Delay());
  timeline_.After(arrival_ms - timeline_.now_ms(), [this, id, deliver = std::move(deliver)] {
    if (IsOpen(id)) deliver();
  });
}

void Network::Break(core::ConnectionId id) {
  const auto stream = streams_.find(id);
  if (stream == streams_.end()) return;
  const Ends ends = std::move(stream->second.ends);
  streams_.erase(stream);
  timeline_.After(is_calm_ ? 1 : rng_.Between(0, 3'000), [id, ends] { ends.agent(id); });
  if (is_calm_ || rng_.Chance(800)) {
    timeline_.After(is_calm_ ? 1 : rng_.Between(0, 8'000), [id, ends] { ends.coordinator(id); });
  }
}

void Network::BreakAll() {
  std::vector<core::ConnectionId> ids;
  for (const auto& [id, stream] : streams_) ids.push_back(id);
  for (const core::ConnectionId id : ids) Break(id);
}

}  // namespace tandem::sim
