// Spec: what a user may ask for, from YAML text to the resolved job that the service stores.
//
// Everything here derives from one table of fields (spec/fields.h): parsing, validation, defaults
// and `tandem explain`. Pure functions of their arguments, any thread; only InspectPaths touches
// the disk. Nothing throws; what the user did wrong comes back as Violations, all at once. Used by
// the CLI, the coordinator and the agent.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "tandem/v1/spec.pb.h"

namespace tandem {

// One thing wrong with a spec.
struct Violation {
  std::string field;    // "finetune.steps", "stages[1].finetune.steps", "data.train[0]"; "" for the
                        // whole text
  std::string message;  // a whole sentence: field, value, what is allowed, what to do
  int line = 0;         // 1-based line of the YAML; 0: none
};

struct ParsedSpec {
  v1::JobSpec spec;
  std::map<std::string, int> lines;  // field path -> 1-based line of its key or list item
};

struct ParseOutcome {
  ParsedSpec parsed;                  // what could be read, even beside violations
  std::vector<Violation> violations;  // in the order of the text
};

// Longest YAML text that is read.
inline constexpr size_t kMaxSpecBytes = 1 << 20;

// Strict YAML: unknown fields (with the nearest name), duplicate keys, wrong types and shapes,
// anchors, merge keys, tags and further documents are refused. Relative paths become absolute
// against base_dir. Checks shapes, not values.
ParseOutcome ParseYaml(const std::string& text, const std::string& base_dir);

// Ranges, allowed values and rules between fields. Takes specs as users write them, and resolved
// ones.
std::vector<Violation> Validate(const v1::JobSpec& spec);

// ParseYaml, then Validate with lines; a field that could not be read is not reported again as
// missing.
ParseOutcome ReadSpec(const std::string& text, const std::string& base_dir);

// A valid spec with every field set: `recipe` keeps its name, `stages` holds what it stands for,
// and the overrides attention_transfer and finetune are gone. Idempotent. What only the worker can
// know stays 0, meaning "from there": attention.feature_map.dim (the model's head_dim) and
// parallelism.threads_per_rank (cores / slots).
v1::JobSpec Resolve(const v1::JobSpec& spec);

// Every set field, keys sorted, no spaces: equal specs give equal text.
std::string CanonicalJson(const v1::JobSpec& spec);

// SHA-256 (hex) of CanonicalJson(Resolve(spec)) without name, project and priority: what the job
// computes. Equal for a spec and its resolved form.
std::string SpecSha256(const v1::JobSpec& spec);

// The spec as YAML that ParseYaml reads back to the same message.
std::string SpecToYaml(const v1::JobSpec& spec);

// Words about one field ("finetune.steps"), a group ("finetune") or, for "", the whole tree.
// kNotFound with the nearest name for others.
Result<std::string> Explain(const std::string& path);

// Looks at the files a spec names, on the machine that will read them: model directory (config.json
// of a supported family, safetensors, tokenizer) and data files. Milliseconds: no tensor and no
// text is read.
std::vector<Violation> InspectPaths(const v1::JobSpec& spec);

// The line of a field, or of the nearest group around it; 0: none.
int LineOfField(std::string field, const std::map<std::string, int>& lines);

// One line each: "message" or, with a line, "line 7: message".
std::string ViolationsToText(const std::vector<Violation>& violations);

}  // namespace tandem
