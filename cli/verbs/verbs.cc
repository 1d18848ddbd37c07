#include "cli/verbs/verbs.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/files.h"
#include "cli/job_text.h"

namespace tandem::cli {
namespace {

// "" or why no file can be made there.
std::string RefusePlace(const std::string& file) {
  const std::string path = AbsolutePath(file);
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (file.empty() || IsFolder(path)) return file + " is no file to write to";
  if (!IsFolder(folder)) return "the folder " + folder + " does not exist";
  if (access(folder.c_str(), W_OK) != 0) return "the folder " + folder + " cannot be written to";
  return "";
}

}  // namespace

CLI::App* AddVerb(CLI::App& app, Invocation& invocation, const std::string& name,
                  const std::string& words) {
  CLI::App* verb = app.add_subcommand(name, words);
  verb->fallthrough();
  verb->add_option_function<std::string>(
          "-o,--output",
          [&invocation](const std::string& format) {
            invocation.format = format == "json"   ? Format::kJson
                                : format == "yaml" ? Format::kYaml
                                : format == "name" ? Format::kName
                                                   : Format::kTable;
          },
          "How to print: table (default), json, yaml or name")
      ->check(CLI::IsMember({"table", "json", "yaml", "name"}))
      ->type_name("FORMAT");
  return verb;
}

void AddHtml(CLI::App& verb, std::string& file, const std::string& words) {
  verb.add_option("--html", file, words)->check(RefusePlace, "")->type_name("FILE");
}

void AddRequireVerdict(CLI::App& verb, std::string& verdict) {
  verb.add_option("--require-verdict", verdict,
                  "Leave with 6 if the verdict is below balanced or leaning")
      ->check(CLI::IsMember({"balanced", "leaning"}))
      ->type_name("VERDICT");
}

void AddFullDiskSeconds(CLI::App& verb, int64_t& seconds) {
  verb.add_option("--full-disk-seconds", seconds, "How long the disk may be full before this ends")
      ->check(CLI::Range(int64_t{1}, int64_t{86'400}))
      ->type_name("N")
      ->capture_default_str();
}

void AddVerbs(CLI::App& app, Invocation& invocation) {
  app.add_option("--server", invocation.server, "Address of the coordinator")
      ->envname("TANDEM_SERVER")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  AddRun(app, invocation);
  AddSweep(app, invocation);
  AddSubmit(app, invocation);
  AddValidate(app, invocation);
  AddExplain(app, invocation);
  AddList(app, invocation);
  AddGet(app, invocation);
  AddWatch(app, invocation);
  AddLogs(app, invocation);
  AddCancel(app, invocation);
  AddReport(app, invocation);
  AddCompare(app, invocation);
  AddWorkers(app, invocation);
  AddGenerate(app, invocation);
  AddDiagnose(app, invocation);
  AddVersion(app, invocation);
  app.require_subcommand(1);
}

std::string CommandFor(const Invocation& invocation, const std::string& verb,
                       const std::string& job_name) {
  std::vector<std::string> words = {"tandem", verb, ShortName(job_name)};
  if (invocation.server != kDefaultServer)
    words.insert(words.end(), {"--server", invocation.server});
  return ShellWords(words);
}

std::string ShellWords(const std::vector<std::string>& words) {
  std::string line;
  for (const auto& word : words) {
    if (!line.empty()) line += " ";
    const bool plain = !word.empty() && word.find_first_not_of(
                                            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                            "0123456789_./:=,+-") == std::string::npos;
    if (plain) {
      line += word;
      continue;
    }
    line += "'";
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += "'";
  }
  return line;
}

}  // namespace tandem::cli
