// tandem: the command line. Everything is in command_line.cc and verbs/.
#include <string>
#include <vector>

#include "cli/command_line.h"
#include "cli/interrupt.h"

int main(int argc, char** argv) {
  tandem::cli::Interrupts interrupts;  // before any other thread
  return tandem::cli::RunCommandLine(std::vector<std::string>(argv, argv + argc), interrupts);
}
