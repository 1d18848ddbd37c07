// The command line of `tandem`: parses, finds typos in verbs, runs the verb. Behind main.cc so that
// tests can call it.
#pragma once

#include <string>
#include <vector>

#include "cli/interrupt.h"

namespace tandem::cli {

// arguments: without the program's name. Returns the exit code.
int RunCommandLine(const std::vector<std::string>& arguments, Interrupts& interrupts);

}  // namespace tandem::cli
