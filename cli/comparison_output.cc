#include "cli/comparison_output.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <vector>

#include "base/files.h"
#include "cli/comparison.h"
#include "cli/comparison_text.h"
#include "cli/output.h"
#include "cli/python_module.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

Status WritePage(const nlohmann::json& comparison, const std::string& file) {
  const std::string out = AbsolutePath(file);
  const std::string figures = out + "." + std::to_string(getpid()) + ".json";
  TANDEM_RETURN_IF_ERROR(WriteFileDurably(
      figures, comparison.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  const auto made = RunPython("tandem.compare_page", {"--comparison", figures, "--out", out});
  const Status removed = RemoveTree(figures);
  if (!made.ok()) return made.status().WithContext("--html");
  if (*made != 0) return Internal("the page could not be made: what Python said stands above");
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
  AddHtml(*verb, output.html, "Also save a page, self-contained, to this file");
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
