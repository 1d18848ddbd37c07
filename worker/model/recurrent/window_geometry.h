// Which keys a row's window holds (method.md §3), as the recurrent form needs it: the first
// position of the window never falls from one row to the next, so what has left it once has left it
// for ever. Pure; positions are 0-based.
//
// Blocks that end with the sequence (window.align_end) end with the prompt here, the only length
// that is known; the rows after it slide, as LoLCATs decodes.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tandem {

struct WindowGeometry {
  bool terraced = false;  // blocks of `size`: a row sees its own and the one before
  int64_t size = 64;      // >= 1
  bool align_end = false;

  // First position of the window of row `row`, sinks aside, after a prompt of so many tokens.
  int64_t Start(int64_t row, int64_t prompt) const {
    const bool slides = !terraced || (align_end && row >= prompt);
    const int64_t padding = align_end ? (size - prompt % size) % size : 0;
    const int64_t start = slides ? row - size + 1 : ((row + padding) / size - 1) * size - padding;
    return std::max<int64_t>(0, start);
  }
};

}  // namespace tandem
