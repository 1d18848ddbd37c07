// Python modules of Tandem, run for a verb: `python -m tandem.<module>` with the interpreter and
// the packages that lie beside this binary, or that TANDEM_PYTHON and TANDEM_PYTHONPATH name (as
// for the worker). Confined to the main thread.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace tandem::cli {

// SHA-256 of all of them: whether a folder was written by the same Tandem.
Result<std::string> DigestOfModules();

// Becomes `python -m module arguments...`: same terminal, same process, its exit code is ours.
// Comes back only if it cannot start, with the reason.
Status BecomePython(const std::string& module, const std::vector<std::string>& arguments);

// Runs it and waits; its output goes where ours goes. The exit code, or why it did not start.
Result<int> RunPython(const std::string& module, const std::vector<std::string>& arguments);

}  // namespace tandem::cli
