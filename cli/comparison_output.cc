#include "cli/comparison_output.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/files.h"
#include "cli/comparison.h"
#include "cli/comparison_text.h"
#include "cli/embedded.h"
#include "cli/output.h"

namespace tandem::cli {
namespace {

std::string FromEnvironment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

struct Python {
  std::string interpreter;
  std::string path;
};

// The same places in which the worker looks.
Result<Python> FindPython() {
  TANDEM_ASSIGN_OR_RETURN(const std::string bin, OwnFolder());
  const auto root = std::filesystem::path(bin).parent_path().parent_path().string();
  Python python{FromEnvironment("TANDEM_PYTHON", root + "/.venv/bin/python"),
                FromEnvironment("TANDEM_PYTHONPATH", root + "/python")};
  if (access(python.interpreter.c_str(), X_OK) != 0) {
    return FailedPrecondition("--html needs Python, and there is none at " + python.interpreter +
                              "; TANDEM_PYTHON names another, or take -o json");
  }
  return python;
}

Status RunToEnd(const std::vector<std::string>& command) {
  std::vector<char*> words;
  for (const auto& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  pid_t pid = 0;
  if (const int error = posix_spawn(&pid, words[0], nullptr, nullptr, words.data(), environ);
      error != 0) {
    errno = error;
    return ErrnoStatus("start " + command[0]);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return ErrnoStatus("wait for " + command[0]);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return Status::Ok();
  return Internal("the page could not be made: what Python said stands above");
}

Status WritePage(const nlohmann::json& comparison, const std::string& file) {
  TANDEM_ASSIGN_OR_RETURN(const Python python, FindPython());
  const std::string out = AbsolutePath(file);
  const std::string figures = out + "." + std::to_string(getpid()) + ".json";
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(
      figures, comparison.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  const Status made = RunToEnd({"/usr/bin/env", "PYTHONPATH=" + python.path,
                                "PYTHONDONTWRITEBYTECODE=1", python.interpreter, "-m",
                                "tandem.compare_page", "--comparison", figures, "--out", out});
  const Status removed = RemoveTree(figures);
  TANDEM_RETURN_IF_ERROR(made);
  PrintErr("wrote " + file + "\n");
  return removed;
}

}  // namespace

CLI::App* AddComparisonVerb(CLI::App& app, const std::string& name, const std::string& words,
                            ComparisonOutput& output) {
  CLI::App* verb = app.add_subcommand(name, words);
  verb->fallthrough();
  verb->add_option("-o,--output", output.format,
                   "How to print: table (default), json, csv, yaml or name")
      ->check(CLI::IsMember({"table", "json", "csv", "yaml", "name"}))
      ->type_name("FORMAT");
  verb->add_option("--html", output.html, "Also save a page, self-contained, to this file")
      ->type_name("FILE");
  return verb;
}

Status GiveComparison(const nlohmann::json& comparison, const ComparisonOutput& output) {
  if (!output.html.empty()) TANDEM_RETURN_IF_ERROR(WritePage(comparison, output.html));
  if (output.format == "csv") {
    PrintOut(ComparisonCsv(comparison));
  } else if (output.format == "name") {
    for (const auto& job : comparison["jobs"]) PrintOut(job["name"].get<std::string>() + "\n");
  } else if (output.format == "table") {
    PrintOut(ComparisonText(comparison, StyleOfStdout()));
  } else {
    PrintOut(Rendered(comparison, output.format == "yaml" ? Format::kYaml : Format::kJson));
  }
  return Status::Ok();
}

}  // namespace tandem::cli
