// Python check: can this interpreter prepare data? Asked once, before the worker registers.
#pragma once

#include <string>

namespace tandem::agent {

// "" when `python` imports tokenizers and the package tandem from `python_path`; else one sentence
// that says what to do. Blocks for up to 60 s (half a second as a rule). Call while the process has
// one thread and reaps no children.
std::string PythonFault(const std::string& python, const std::string& python_path);

}  // namespace tandem::agent
