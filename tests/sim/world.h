// World: a cluster, its users and its troubles, all from one seed. After a time of chaos everything
// is healed, and all must come to a good end: every promise kept, every job over, no slot leaked.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "tests/sim/agent.h"
#include "tests/sim/client.h"
#include "tests/sim/coordinator.h"

namespace tandem::sim {

class World {
 public:
  World(uint64_t seed, Sabotage sabotage);
  // To the end, or to the first broken promise.
  const Truth& Run();

 private:
  void Wire();
  void PlanTrouble();
  void Trouble();
  void Heal();
  bool IsOver() const;
  void CheckEnd();
  void CheckHistory();
  Agent& AnyAgent();

  Timeline timeline_;
  Rng rng_;
  Truth truth_;
  Network network_;
  Coordinator coordinator_;
  Client client_;
  std::map<std::string, std::unique_ptr<Agent>> agents_;
  int64_t largest_gang_ = 1;
  int64_t largest_on_gpus_ = 0;
  int64_t jobs_left_ = 0;
  int64_t heal_at_ms_ = 0;
  bool is_calm_ = false;
};

}  // namespace tandem::sim
