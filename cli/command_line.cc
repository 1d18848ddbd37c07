#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "cli/exit_code.h"
#include "cli/verbs/verbs.h"
#include "spec/nearest.h"

namespace tandem::cli {
namespace {

constexpr char kWords[] =
    "Tandem converts softmax Transformers into hybrids of linear attention and a sliding window, "
    "and proves that both "
    "components pull.\n\n  tandem run examples/ssd.yaml --work work     a whole conversion on this "
    "machine";

std::vector<std::string> VerbNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(verb->get_name());
  return names;
}

// "" or what to say about a first word that is no verb.
std::string UnknownVerb(const CLI::App& app, const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--server") {
      ++i;  // its value
      continue;
    }
    if (arguments[i].starts_with('-')) continue;
    const auto names = VerbNames(app);
    if (std::ranges::find(names, arguments[i]) != names.end()) return "";
    const std::string near = NearestName(arguments[i], names);
    return arguments[i] + " is not a verb of tandem; " +
           (near.empty() ? "`tandem --help` lists them" : "did you mean " + near + "?");
  }
  return "";
}

}  // namespace

int RunCommandLine(const std::vector<std::string>& words, Interrupts& interrupts) {
  const std::vector<std::string> arguments(words.begin() + 1, words.end());
  CLI::App app(kWords, "tandem");
  Invocation invocation;
  invocation.interrupts = &interrupts;
  invocation.words = words;
  app.set_version_flag("--version", "tandem " TANDEM_VERSION);
  AddVerbs(app, invocation);
  if (const std::string message = UnknownVerb(app, arguments); !message.empty()) {
    PrintError(message);
    return kExitUsage;
  }
  // CLI11 tells everything about a command line by exceptions, help included.
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    const auto verbs = app.get_subcommands();
    PrintOut(verbs.empty() ? app.help() : verbs.front()->help());
    return kExitOk;
  } catch (const CLI::CallForVersion&) {
    PrintOut(app.version() + "\n");
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    const auto verbs = app.get_subcommands();
    PrintError(std::string(error.what()) + "; see `tandem " +
               (verbs.empty() ? "" : verbs.front()->get_name() + " ") + "--help`");
    return kExitUsage;
  }
  return invocation.action();
}

}  // namespace tandem::cli
