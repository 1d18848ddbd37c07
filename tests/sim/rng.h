// Rng: the only source of chance in a simulated world (splitmix64). The same seed gives the same
// world everywhere, which the distributions of <random> do not promise.
#pragma once

#include <cstdint>

namespace tandem::sim {

class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // In [low, high].
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Next() % static_cast<uint64_t>(high - low + 1));
  }
  bool Chance(int per_thousand) { return Between(0, 999) < per_thousand; }

 private:
  uint64_t state_;
};

}  // namespace tandem::sim
