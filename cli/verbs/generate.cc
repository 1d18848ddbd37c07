// tandem generate: writes text with an exported model. The work is done by `python -m
// tandem.generate`, which this process becomes, and by tandem-rank.
#include <CLI/CLI.hpp>
#include <memory>

#include "base/files.h"
#include "cli/embedded.h"
#include "cli/exit_code.h"
#include "cli/python_module.h"
#include "cli/verbs/verbs.h"

namespace tandem::cli {
namespace {

struct GenerateOptions {
  std::string model, prompt, mode = "served", base, device = "cpu", dtype = "float32";
  int64_t max_tokens = 256, threads = 0;
  uint64_t seed = 0;
  double temperature = 0, top_p = 1;
  bool chat = false, compare = false;
};

int Generate(const Invocation& invocation, const GenerateOptions& options) {
  if (invocation.format == Format::kYaml || invocation.format == Format::kName) {
    return Fail(InvalidArgument("-o yaml and -o name have no meaning here; take json or table"));
  }
  const auto bin = OwnFolder();
  if (!bin.ok()) return Fail(bin.status());
  std::vector<std::string> words = {options.model,
                                    "--rank=" + JoinPath(*bin, "tandem-rank"),
                                    "--prompt=" + options.prompt,
                                    "--mode=" + options.mode,
                                    "--max-tokens=" + std::to_string(options.max_tokens),
                                    "--threads=" + std::to_string(options.threads),
                                    "--device=" + options.device,
                                    "--dtype=" + options.dtype,
                                    "--seed=" + std::to_string(options.seed),
                                    "--temperature=" + std::to_string(options.temperature),
                                    "--top-p=" + std::to_string(options.top_p)};
  if (options.chat) words.emplace_back("--chat");
  if (options.compare) words.emplace_back("--compare");
  if (!options.base.empty()) words.push_back("--base=" + options.base);
  if (invocation.format == Format::kJson) words.emplace_back("--json");
  return Fail(BecomePython("tandem.generate", words));
}

// What a job file calls parallelism and model.dtype.
void AddDevice(CLI::App& verb, GenerateOptions& options) {
  verb.add_option("--device", options.device, "What the model computes on: cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->type_name("DEVICE")
      ->capture_default_str();
  verb.add_option("--dtype", options.dtype, "Type of its weights; bfloat16 needs --device cuda")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->type_name("TYPE")
      ->capture_default_str();
  verb.add_option("--threads", options.threads, "CPU threads; default: all cores")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->type_name("N");
}

void AddSampling(CLI::App& verb, GenerateOptions& options) {
  verb.add_option("--max-tokens", options.max_tokens, "Write at most so many")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000'000}))
      ->type_name("N")
      ->capture_default_str();
  verb.add_option("--temperature", options.temperature, "0: always the likeliest token")
      ->check(CLI::Range(0.0, 100.0))
      ->type_name("REAL")
      ->capture_default_str();
  verb.add_option("--top-p", options.top_p,
                  "Draw from the fewest tokens that hold this probability")
      ->check(CLI::Range(1e-6, 1.0))
      ->type_name("REAL")
      ->capture_default_str();
  verb.add_option("--seed", options.seed, "The same seed writes the same text")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N")
      ->capture_default_str();
}

}  // namespace

void AddGenerate(CLI::App& app, Invocation& invocation) {
  const auto options = std::make_shared<GenerateOptions>();
  CLI::App* verb =
      AddVerb(app, invocation, "generate", "Write text with an exported model, in constant memory");
  verb->add_option("model", options->model, "Folder of the exported model, or of a base model")
      ->required()
      ->type_name("DIR");
  verb->add_option("--prompt", options->prompt, "The text to go on from; - for stdin")
      ->required()
      ->type_name("TEXT");
  verb->add_flag("--chat", options->chat,
                 "The text is the user's message in the model's chat template");
  AddSampling(*verb, *options);
  verb->add_option("--mode", options->mode, "Which component writes; served: as exported")
      ->check(CLI::IsMember({"served", "softmax", "hybrid", "window_only", "linear_only"}))
      ->type_name("MODE")
      ->capture_default_str();
  verb->add_flag("--compare", options->compare, "First the base model, then the converted one");
  verb->add_option("--base", options->base, "The base model, where the export does not name it")
      ->type_name("DIR");
  AddDevice(*verb, *options);
  verb->callback([&invocation, options] {
    invocation.action = [&invocation, options] { return Generate(invocation, *options); };
  });
}

}  // namespace tandem::cli
