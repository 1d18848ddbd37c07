// tandem explain: the fields of a job file, from the table that validates them.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/exit_code.h"
#include "cli/verbs/verbs.h"
#include "spec/fields.h"
#include "spec/spec.h"

namespace tandem::cli {
namespace {

nlohmann::json RowJson(const Field& field) {
  return {{"field", field.path},
          {"type", TypeWords(field)},
          {"allowed", AllowedWords(field)},
          {"default", DefaultWords(field)},
          {"required", field.required},
          {"unit", field.unit},
          {"words", field.words}};
}

int ExplainField(const Invocation& invocation, const std::string& path) {
  const auto text = Explain(path);
  if (!text.ok()) return Fail(text.status());
  if (invocation.format == Format::kTable) {
    PrintOut(*text);
    return kExitOk;
  }
  const std::string below = TablePath(path) + ".";
  auto rows = nlohmann::json::array();
  for (const auto& field : Fields()) {
    const bool asked =
        path.empty() || field.path == TablePath(path) || field.path.starts_with(below);
    if (asked && invocation.format == Format::kName) PrintOut(std::string(field.path) + "\n");
    if (asked) rows.push_back(RowJson(field));
  }
  if (invocation.format != Format::kName) PrintOut(Rendered({{"fields", rows}}, invocation.format));
  return kExitOk;
}

}  // namespace

void AddExplain(CLI::App& app, Invocation& invocation) {
  const auto path = std::make_shared<std::string>();
  CLI::App* verb =
      AddVerb(app, invocation, "explain", "Explain a field of job files, or list them all");
  verb->add_option("field", *path, "Such as finetune.steps; nothing: all")->type_name("FIELD");
  verb->callback([&invocation, path] {
    invocation.action = [&invocation, path] { return ExplainField(invocation, *path); };
  });
}

}  // namespace tandem::cli
