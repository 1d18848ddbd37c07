// Script: a scenario file, read and written.
//
//   # a comment
//   create a slots=2        <- a command; several may stand above one ----
//   ----
//   1 u1 created PENDING    <- what must come of them, up to the next empty line
//
// TANDEM_REWRITE=1 writes what came instead of comparing. Commit only what you can explain.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace tandem::scenario {

struct Block {
  std::string comment;  // lines above it, with their newlines
  std::vector<std::string> commands;
  std::string expected;
  int line = 0;  // of the first command
};

Result<std::vector<Block>> ReadScript(const std::string& path);
Status WriteScript(const std::string& path, const std::vector<Block>& blocks);

}  // namespace tandem::scenario
