// How a difference of losses is written in a sentence: nats, to four decimals. Pure; any thread.
#pragma once

#include <cstdio>
#include <string>

namespace tandem {

inline std::string Nats(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", value);
  return text;
}

}  // namespace tandem
