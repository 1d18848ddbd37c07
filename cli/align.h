// Numbers in tables read better flush right.
#pragma once

#include <cstddef>
#include <string>

namespace tandem::cli {

// Filled up with spaces on the left to `width`.
inline std::string Right(const std::string& text, size_t width) {
  return text.size() >= width ? text : std::string(width - text.size(), ' ') + text;
}

}  // namespace tandem::cli
