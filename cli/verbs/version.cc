// tandem version.
#include <CLI/CLI.hpp>

#include "cli/exit_code.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {

void AddVersion(CLI::App& app, Invocation& invocation) {
  CLI::App* verb = AddVerb(app, invocation, "version", "Print the version");
  verb->callback([&invocation] {
    invocation.action = [&invocation] {
      const bool words = invocation.format == Format::kTable || invocation.format == Format::kName;
      PrintOut(words ? "tandem " TANDEM_VERSION "\n"
                     : Rendered({{"version", TANDEM_VERSION}}, invocation.format));
      return kExitOk;
    };
  });
}

}  // namespace tandem::cli
