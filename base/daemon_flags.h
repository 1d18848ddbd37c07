// The command line of the daemons, as far as it is the same: three flags, and the ways out of
// CLI11's parser. Header-only, so that only who includes it knows CLI11.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace tandem {

// --metrics, --die-with-parent, --version.
inline void AddDaemonFlags(CLI::App& app, const std::string& program, std::string& metrics,
                           bool& die_with_parent) {
  app.add_option("--metrics", metrics, "Prometheus address, loopback; port 0 chooses one")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_flag("--die-with-parent", die_with_parent, "end when the starting process ends");
  app.set_version_flag("--version", program + " " + TANDEM_VERSION);
}

// What --help or --version print, after which the process leaves with 0; else "". A line that
// cannot be read adds to `errors`.
inline std::string ParseDaemonFlags(CLI::App& app, int argc, const char* const* argv,
                                    std::vector<std::string>& errors) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return app.help();
  } catch (const CLI::CallForVersion&) {
    return app.version() + "\n";
  } catch (const CLI::ParseError& error) {
    errors.push_back(error.what());
  }
  return "";
}

}  // namespace tandem
