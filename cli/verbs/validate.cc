// tandem validate: checks a job file without running anything.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/exit_code.h"
#include "cli/job_file.h"
#include "cli/verbs/verbs.h"
#include "spec/json.h"

namespace tandem::cli {
namespace {

struct ValidateOptions {
  std::string file;
  bool ignore_files = false;
};

std::string ValidWords(const std::string& file) {
  if (file == "-") return "stdin is valid\n";
  return file + " is valid. With every default filled in:  tandem validate " + ShellWords({file}) +
         " -o yaml\n";
}

int Check(const Invocation& invocation, const ValidateOptions& options) {
  const auto file = ReadJobFile(options.file);
  if (!file) return kExitUsage;
  if (const auto faults = FaultsOfPaths(file->parsed); !options.ignore_files && !faults.empty()) {
    PrintErr(FaultLines(file->path, faults));
    return kExitUsage;
  }
  const v1::JobSpec resolved = Resolve(file->parsed.spec);
  switch (invocation.format) {
    case Format::kJson:
      PrintOut(Rendered(ProtoToJson(resolved), Format::kJson));
      break;
    case Format::kYaml:
      PrintOut(SpecToYaml(resolved));
      break;
    case Format::kName:
      PrintOut(resolved.name() + "\n");
      break;
    case Format::kTable:
      PrintOut(ValidWords(options.file));
  }
  return kExitOk;
}

}  // namespace

void AddValidate(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<ValidateOptions>();
  CLI::App* verb =
      AddVerb(app, invocation, "validate", "Check a job file; -o yaml prints it with all defaults");
  verb->add_option("file", options->file, "Job file; - for stdin")
      ->required()
      ->type_name("JOB.yaml");
  verb->add_flag("--ignore-files", options->ignore_files,
                 "Do not look at the model and data files it names");
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return Check(invocation, *options); };
  });
}

}  // namespace tandem::cli
