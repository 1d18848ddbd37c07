// The command line of `tandem`: parses, finds typos in verbs, runs the verb. Behind main.cc so that
// tests can call it.
#pragma once

#include <string>
#include <vector>

#include "cli/interrupt.h"

namespace tandem::cli {

// words: the command line as typed, the program's own name first. Returns the exit code.
int RunCommandLine(const std::vector<std::string>& words, Interrupts& interrupts);

}  // namespace tandem::cli
