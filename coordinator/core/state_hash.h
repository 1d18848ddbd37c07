// StateHash: a 64-bit number for everything in a State. Same events, same hash (I15): what shows
// that Step is deterministic. Not stable between versions; not for storing.
#pragma once

#include <cstdint>
#include <string_view>

#include "coordinator/core/effect.h"
#include "coordinator/core/state.h"

namespace tandem::core {

// FNV-1a over fields, each with its size, so that neighbours cannot trade bytes.
class Hasher {
 public:
  Hasher& Add(std::string_view text);
  Hasher& Add(int64_t number);
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

uint64_t StateHash(const State& state);
// What leaves the process: rows, replies and commands.
uint64_t EffectsHash(const Effects& effects);

}  // namespace tandem::core
