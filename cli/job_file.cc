#include "cli/job_file.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <sstream>

#include "base/files.h"
#include "base/gpus.h"
#include "cli/output.h"
#include "cli/sweep_file.h"

namespace tandem::cli {
namespace {

Result<std::string> ReadText(const std::string& path) {
  if (path != "-") return ReadFile(path, kMaxSpecBytes);
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

std::string FolderOf(const std::string& path) {
  if (path == "-") return std::filesystem::current_path().string();
  return std::filesystem::path(AbsolutePath(path)).parent_path().string();
}

std::vector<Violation> InOrderOfLines(std::vector<Violation> faults, const ParsedSpec& parsed) {
  for (auto& fault : faults) fault.line = LineOfField(fault.field, parsed.lines);
  std::ranges::stable_sort(faults, {}, &Violation::line);
  return faults;
}

}  // namespace

std::optional<JobFile> ReadJobFile(const std::string& path) {
  const auto text = ReadText(path);
  if (!text.ok()) {
    PrintError("cannot read the job file: " + text.status().message());
    return std::nullopt;
  }
  ParseOutcome outcome = ReadSpec(*text, FolderOf(path));
  if (!outcome.violations.empty() && IsSweep(*text)) {
    PrintError(path + " is a sweep file; `tandem sweep " + path + "` runs it");
    return std::nullopt;
  }
  if (!outcome.violations.empty()) {
    PrintErr(FaultLines(path, outcome.violations));
    return std::nullopt;
  }
  return JobFile{path, std::move(outcome.parsed)};
}

std::string FaultLines(const std::string& path, const std::vector<Violation>& violations) {
  std::string text;
  for (const auto& violation : violations) {
    text += path == "-" ? "stdin" : path;
    if (violation.line > 0) text += ":" + std::to_string(violation.line);
    text += ": " + violation.message + "\n";
  }
  return text;
}

std::vector<Violation> FaultsOfMessage(const std::string& message, const ParsedSpec& parsed) {
  std::vector<Violation> faults;
  std::istringstream lines(message);
  for (std::string line; std::getline(lines, line);) {
    const std::string field = line.substr(0, line.find_first_of(" :"));
    faults.push_back({field, line, LineOfField(field, parsed.lines)});
  }
  return faults;
}

std::vector<Violation> FaultsOfPaths(const ParsedSpec& parsed) {
  return InOrderOfLines(InspectPaths(Resolve(parsed.spec)), parsed);
}

std::vector<Violation> FaultsOfGpus(const ParsedSpec& parsed, int64_t gpus) {
  const int64_t ranks = Resolve(parsed.spec).parallelism().data();
  if (ranks <= gpus) return {};
  Violation fault;
  if (gpus == 0) {
    fault.field = "parallelism.device";
    fault.message =
        "parallelism.device is \"cuda\", and this machine has no GPU that may be used (nvidia-smi "
        "lists none, or CUDA_VISIBLE_DEVICES leaves none); run it where there is one, or take the "
        "CPU (parallelism.device: cpu in a job file, --device cpu of diagnose)";
  } else {
    fault.field = "parallelism.data";
    fault.message = "parallelism.data is " + std::to_string(ranks) +
                    ", and each rank takes a GPU of its own; this machine has " +
                    std::to_string(gpus) + " that may be used: set it to at most that";
  }
  return InOrderOfLines({fault}, parsed);
}

std::vector<Violation> FaultsHere(const ParsedSpec& parsed) {
  auto faults = FaultsOfPaths(parsed);
  if (Resolve(parsed.spec).parallelism().device() != "cuda") return faults;
  for (auto& fault : FaultsOfGpus(parsed, std::ssize(VisibleGpus()))) faults.push_back(fault);
  return faults;
}

}  // namespace tandem::cli
