// Which keys a row's window holds (method.md §3), as the recurrent form needs it: the first
// position of the window never falls from one row to the next, so what has left it once has left it
// for ever. Pure; positions are 0-based.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tandem {

struct WindowGeometry {
  bool terraced = false;  // blocks of `size`: a row sees its own and the one before
  int64_t size = 64;      // >= 1

  // First position of the window of row `row`, sinks aside.
  int64_t Start(int64_t row) const {
    const int64_t start = terraced ? (row / size - 1) * size : row - size + 1;
    return std::max<int64_t>(0, start);
  }
};

}  // namespace tandem
