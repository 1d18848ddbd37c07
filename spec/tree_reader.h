// YAML tree -> JobSpec, by walking the proto's descriptor beside the table of fields. Shapes and
// types only; values are judged by Validate. Pure; whatever is wrong becomes a Violation and the
// rest is still read.
#pragma once

#include <string>
#include <vector>

#include "spec/spec.h"
#include "spec/yaml_tree.h"

namespace tandem {

// Fills outcome.parsed and appends to outcome.violations, in the order of the text. Returns the
// paths of the fields whose value could not be taken over.
std::vector<std::string> ReadTree(const YamlNode& root, const std::string& base_dir,
                                  ParseOutcome& outcome);

// The text as a tree, checked for size and UTF-8; for files that hold job specs in part.
YamlTree ReadJobTree(const std::string& text);

// ReadSpec for a tree that was put together from several places: every fault keeps the line of its
// own.
ParseOutcome ReadSpecTree(const YamlNode& root, const std::string& base_dir);

}  // namespace tandem
