// tandem diagnose: the component report of a model that is already exported. A job of recipe
// `diagnose`, which trains nothing, run like `tandem run`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "base/digest.h"
#include "base/files.h"
#include "cli/embedded.h"
#include "cli/exit_code.h"
#include "cli/python_module.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

using nlohmann::json;

constexpr int64_t kMaxJsonBytes = int64_t{1} << 26;
constexpr char kExampleText[] = "../../examples/text/validation.jsonl.xz";

struct DiagnoseOptions {
  std::string model, base;
  std::vector<std::string> data;
  std::vector<std::string> lolcats;  // DISTILL.pt, FINETUNE.pt
  int64_t length = 0;
  std::string device = "cpu";
  RunOptions run;
};

json ReadJson(const std::string& path) {
  const auto text = ReadFile(path, kMaxJsonBytes);
  return text.ok() ? json::parse(*text, nullptr, /*allow_exceptions=*/false) : json();
}

// The value at a pointer, or null.
json At(const json& object, const char* pointer) {
  const json::json_pointer at(pointer);
  return object.is_object() && object.contains(at) ? object.at(at) : json();
}

bool AreFiles(const json& paths) {
  return paths.is_array() && !paths.empty() && std::ranges::all_of(paths, [](const json& path) {
           return path.is_string() && PathExists(path.get<std::string>());
         });
}

// Text given, text that the model was measured on before, or the example's; null: none is there.
json TextFor(const DiagnoseOptions& options, const json& manifest) {
  if (!options.data.empty()) return options.data;
  if (json known = At(manifest, "/spec/data/validation"); AreFiles(known)) return known;
  const auto bin = OwnFolder();
  if (!bin.ok()) return {};
  const std::string example = AbsolutePath(JoinPath(*bin, kExampleText));
  return PathExists(example) ? json::array({example}) : json();
}

// A name that jobs may have.
std::string JobName(const std::string& folder) {
  std::string name = "diagnose-";
  for (const char c : std::filesystem::path(AbsolutePath(folder)).filename().string()) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    name += plain ? c : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : '-';
  }
  name.resize(std::min<size_t>(name.size(), 60));
  while (name.back() == '-') name.pop_back();
  return name;
}

// The job file as JSON text, which is YAML; says what it measures on.
std::optional<std::string> JobText(const DiagnoseOptions& options) {
  const json manifest = ReadJson(JoinPath(options.model, "manifest.json"));
  json job = {{"name", JobName(options.model)}, {"recipe", "diagnose"}};
  job["model"]["path"] = AbsolutePath(options.model);
  if (!options.base.empty()) job["model"]["base"] = AbsolutePath(options.base);
  if (options.base.empty()) {
    const json known = At(manifest, "/spec/model/path");
    if (known.is_string() && IsFolder(known.get<std::string>())) job["model"]["base"] = known;
  }
  const json text = TextFor(options, manifest);
  if (text.is_null()) {
    Fail(InvalidArgument("no text to measure on; give some with --data FILE"));
    return std::nullopt;
  }
  for (const json& path : text) {
    const auto file = AbsolutePath(path.get<std::string>());
    job["data"]["validation"].push_back(file);
    PrintErr("measuring on " + file + "\n");
  }
  const json length = At(manifest, "/spec/data/sequence_length");
  if (length.is_number_integer()) job["data"]["sequence_length"] = length;
  if (options.length > 0) job["data"]["sequence_length"] = options.length;
  job["parallelism"]["device"] = options.device;
  return job.dump(1);
}

Status CheckFolder(const std::string& folder) {
  if (!IsFolder(folder)) {
    return NotFound(folder + " is no folder; give the folder of an exported model");
  }
  const json config = ReadJson(JoinPath(folder, "config.json"));
  if (At(config, "/hybrid").is_object()) return Status::Ok();
  return InvalidArgument(folder +
                         " is not an exported model: its config.json has no object \"hybrid\"");
}

// Of a folder's files by name, size and time: the base may be too large to be digested each time.
std::string StampOfFolder(const std::string& folder) {
  std::vector<std::string> stamps;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const auto time = entry.last_write_time(ignored).time_since_epoch().count();
    stamps.push_back(entry.path().filename().string() + " " +
                     std::to_string(entry.file_size(ignored)) + " " + std::to_string(time));
  }
  std::ranges::sort(stamps);
  std::string stamp = AbsolutePath(folder);
  for (const std::string& each : stamps) stamp += "\n" + each;
  return stamp;
}

Status RemoveOlder(const std::string& folder, const std::string& prefix) {
  TANDEM_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListFolder(folder));
  for (const std::string& name : names) {
    if (name.starts_with(prefix)) TANDEM_RETURN_IF_ERROR(RemoveTree(JoinPath(folder, name)));
  }
  return Status::Ok();
}

// A published LoLCATs checkpoint as an exported model below the work folder, made once per content
// and Tandem: <work>/lolcats/lolcats-CHECKPOINT-MADE, where MADE names the base's files and what
// converted them. Older ones of the same checkpoint are removed; the name, which the job's spec
// holds, lets no report of theirs be taken for the new one's.
Result<std::string> ConvertLolcats(const DiagnoseOptions& options) {
  std::string content;
  for (const std::string& file : options.lolcats) {
    TANDEM_ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(file));
    content += digest + "\n";
  }
  content += AbsolutePath(options.base);
  TANDEM_ASSIGN_OR_RETURN(const std::string converter, DigestOfModules());
  const std::string folder = JoinPath(AbsolutePath(options.run.work), "lolcats");
  const std::string checkpoint = "lolcats-" + Sha256Hex(content).substr(0, 12);
  const std::string made = Sha256Hex(converter + "\n" + StampOfFolder(options.base)).substr(0, 8);
  const std::string model = JoinPath(folder, checkpoint + "-" + made);
  if (PathExists(model)) return model;
  TANDEM_RETURN_IF_ERROR(MakeFolders(folder));
  TANDEM_RETURN_IF_ERROR(RemoveOlder(folder, checkpoint));
  const std::string aside = model + ".unfinished";
  TANDEM_RETURN_IF_ERROR(RemoveTree(aside));
  std::vector<std::string> words = {"--base=" + options.base, "--distill=" + options.lolcats[0]};
  if (options.lolcats.size() > 1) words.push_back("--finetune=" + options.lolcats[1]);
  words.push_back(aside);
  PrintErr("reading the LoLCATs checkpoint\n");
  TANDEM_ASSIGN_OR_RETURN(const int code, RunPython("tandem.lolcats_checkpoint", words));
  if (code != 0) return InvalidArgument("the LoLCATs checkpoint cannot be read; see above");
  TANDEM_RETURN_IF_ERROR(RenameDurably(aside, model));
  return model;
}

Status CheckSource(const DiagnoseOptions& options) {
  const bool is_lolcats = !options.lolcats.empty();
  if (is_lolcats == !options.model.empty()) {
    return InvalidArgument("give either the folder of an exported model or --lolcats");
  }
  if (!is_lolcats) return CheckFolder(options.model);
  if (!options.base.empty()) return Status::Ok();
  return InvalidArgument("--lolcats needs --base, the model that was converted");
}

int Diagnose(Invocation& invocation, DiagnoseOptions options) {
  if (const Status status = CheckSource(options); !status.ok()) return Fail(status);
  if (!options.lolcats.empty()) {
    auto model = ConvertLolcats(options);
    if (!model.ok()) return Fail(model.status());
    options.model = std::move(*model);
  }
  const auto text = JobText(options);
  if (!text) return kExitUsage;
  ParseOutcome outcome = ReadSpec(*text, std::filesystem::current_path().string());
  if (!outcome.violations.empty()) {
    for (Violation& violation : outcome.violations) violation.line = 0;
    PrintErr(FaultLines("diagnose", outcome.violations));
    return kExitUsage;
  }
  outcome.parsed.lines.clear();
  return RunJob(invocation, options.run, JobFile{"diagnose", std::move(outcome.parsed)});
}

}  // namespace

void AddDiagnose(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<DiagnoseOptions>();
  CLI::App* verb = AddVerb(app, invocation, "diagnose",
                           "Measure what each component of an exported model is worth");
  verb->add_option("model", options->model, "Folder of the exported model")->type_name("DIR");
  verb->add_option("--lolcats", options->lolcats,
                   "Instead of DIR: a published LoLCATs checkpoint, feature maps and, if given, "
                   "LoRA; read without running what is in it")
      ->expected(1, 2)
      ->type_name("DISTILL.pt [FINETUNE.pt]");
  verb->add_option("--base", options->base,
                   "The model that was converted, the reference; default: the one the export "
                   "names, else its own weights with softmax")
      ->type_name("DIR");
  verb->add_option(
          "--data", options->data,
          "Text to measure on; default: what the export was measured on, else the example's")
      ->type_name("FILE");
  verb->add_option("--length", options->length,
                   "Tokens per sequence; default: the length it was trained at")
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 24))
      ->type_name("N");
  verb->add_option("--device", options->device, "What the model computes on: cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->type_name("DEVICE")
      ->capture_default_str();
  verb->add_option("--work", options->run.work, "Folder for everything that the run writes")
      ->type_name("DIR")
      ->capture_default_str();
  verb->add_option("--threads", options->run.threads, "CPU threads; default: all cores")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->type_name("N");
  AddRequireVerdict(*verb, options->run.require_verdict);
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return Diagnose(invocation, *options); };
  });
}

}  // namespace tandem::cli
